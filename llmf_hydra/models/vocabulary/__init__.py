"""The tokens a model knows: `tokens` adds special ones and their rows, `slow` reads a tokenizer in Python."""
