"""One thing that differs between two runs, by its name."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

DIGEST = 64  # characters of a SHA-256
SHORT = 12  # characters of it that are shown


@dataclass(frozen=True)
class Difference:
    """What differs: its kind (code, package, data, tokenizer, template, model, config, seed), and both values.

    None stands for what isn't there on that side. `note` says more, for people.
    """

    kind: str
    name: str
    old: Any
    new: Any
    note: str = ""

    def __str__(self) -> str:
        text = f"{self.kind} {self.name}: {_shown(self.old)} -> {_shown(self.new)}"
        return f"{text} ({self.note})" if self.note else text

    def as_dict(self) -> dict[str, Any]:
        """For JSON and CSV."""
        return asdict(self)


def differences_of(kind: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Difference]:
    """The keys at which two mappings differ, in the order of the first and then of the second."""
    names = dict.fromkeys((*old, *new))
    return [
        Difference(kind, name, old.get(name), new.get(name))
        for name in names
        if old.get(name) != new.get(name)
    ]


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    text = str(value)
    is_digest = len(text) == DIGEST and not text.strip("0123456789abcdef")
    return text[:SHORT] if is_digest else text
