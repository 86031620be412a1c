"""`~/` in values: the user's home folder, which no shell puts in behind `key=`."""

import re
from pathlib import Path

from llmf_hydra.config.quoting import is_plain
from llmf_hydra.config.schema import Config, entries, value_at

IN_WORD = re.compile(r"(?<=[=,\[(:'\"\s])~(?=/)")  # before Hydra reads it: its grammar has no bare ~
IN_VALUE = re.compile(r"(^|,\s*)~(?=/)")  # a value, or one of several names separated by commas


def expanded_word(word: str) -> str:
    """An override with the home folder in the place of each `~/`."""
    home = str(Path.home())
    return IN_WORD.sub(lambda _: home, word) if is_plain(home) else word


def expand(cfg: Config) -> None:
    """Put the home folder into the values that files and the environment gave."""
    for key, entry in entries().items():
        value = value_at(cfg, key)
        if isinstance(value, str) and "~/" in value:
            text = IN_VALUE.sub(lambda found: found[1] + str(Path.home()), value)
            setattr(getattr(cfg, entry.group), entry.name, text)
