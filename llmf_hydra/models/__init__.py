"""Models: which one, its tokenizer, its weights, and what it will take in memory."""
