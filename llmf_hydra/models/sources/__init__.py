"""Where a model's files come from, beside a folder: `hubs` fetches them, `gguf` converts a file."""
