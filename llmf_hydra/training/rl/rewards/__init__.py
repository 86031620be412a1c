"""Where the score of an answer comes from: an adapter, a model or a service."""
