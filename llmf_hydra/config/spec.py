"""Where each of the 206 rows of the parameter specification lives, and what became of other known names.

`spec.tsv` is the one table: a row's table, name, type and default, and its place. A place is a key
(`rlhf.pref_beta`) or a choice: `stage=*` means that the row's value is the name of the choice, and
`optimizer=galore` that the row, when true, is that choice. A name may stand in two tables (`seed`).
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llmf_hydra.config.schema import Entry, entries

SPEC = Path(__file__).with_name("spec.tsv")
ANY = "*"  # the choice of a place such as `stage=*`


@dataclass(frozen=True)
class Place:
    """The home of a row: the full key, and the choice that the row stands for, if it is one."""

    key: str
    choice: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Place":
        group, is_choice, choice = text.partition("=")
        return cls(f"{group}.name", choice) if is_choice else cls(text)

    @property
    def entry(self) -> Entry:
        return entries()[self.key]

    @property
    def built(self) -> bool:
        """Whether the row may be set: neither its parameter nor its choice is still to be built."""
        declared = self.entry.param
        return not declared.planned and self.choice not in declared.planned_choices

    def __str__(self) -> str:
        return self.key if self.choice is None else f"{self.entry.group}={self.choice}"


@dataclass(frozen=True)
class Row:
    """One row of the specification; type and default as YAML writes them."""

    table: str
    name: str
    type: str
    default: str
    place: Place

    @property
    def is_variable(self) -> bool:
        """Whether the row is an environment variable, which no file may hold."""
        return self.table == "environment"


@functools.cache
def rows() -> tuple[Row, ...]:
    """The 206 rows, in the order of the specification."""
    return tuple(_read())


def _read() -> Iterator[Row]:
    for line in SPEC.read_text(encoding="utf-8").splitlines()[1:]:
        table, name, type_, default, place = line.split("\t")
        yield Row(table, name, type_, default, Place.parse(place))


def rows_named(name: str) -> list[Row]:
    """The rows of that name; two where two tables use it."""
    return [row for row in rows() if row.name == name]


def rows_at(key: str) -> list[Row]:
    """The rows that live at a full key; several where rows are choices of one group."""
    return [row for row in rows() if row.place.key == key]
