"""Lists of names in one value."""


def names(words: str | None) -> list[str]:
    """Names separated by commas; none for None."""
    return [word.strip() for word in words.split(",")] if words else []
