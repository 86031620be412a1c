"""A model for use elsewhere: adapters merged, weights and tokenizer written, then quantized or pushed if asked."""
