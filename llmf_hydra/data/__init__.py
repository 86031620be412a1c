"""The data engine: rows from files become tokens, once.

The way of a row: `files` reads it, `formats/` brings it into the one canonical form of `rows`, `render`
writes it as text and says which characters are trained, `encode` makes tokens of it, `prepare` keeps the
result.
"""
