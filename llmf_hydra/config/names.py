"""Lists of names in one value."""

import re
from pathlib import Path

SIGNS = re.compile(r"[*+?^$|()\[\]\\]")  # what no name of a module holds


def names(words: str | None) -> list[str]:
    """Names separated by commas; none for None."""
    return [word.strip() for word in words.split(",")] if words else []


def is_pattern(name: str) -> bool:
    """Whether a name of modules is a regular expression."""
    return SIGNS.search(name) is not None


def adapter_place(name: str) -> tuple[str, str | None]:
    """A saved adapter as PEFT takes it: a folder or a hub's `owner/name`, and the folder in the latter."""
    if name.startswith((".", "/", "~")) or Path(name).is_dir() or name.count("/") < 2:
        return str(Path(name).expanduser()) if name.startswith("~") else name, None
    owner, model, subfolder = name.split("/", 2)
    return f"{owner}/{model}", subfolder
