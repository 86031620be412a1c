"""Collators whose batches say which rows of the data they hold, and how many tokens the model computes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

Row = Mapping[str, Any]
Key = tuple[int, int]  # source and row
ROWS, TOKENS = "rows", "tokens"  # what a batch holds beside the inputs of the model


class Tracked(TypedDict):
    """What a batch holds beside the inputs of the model, until a step begins."""

    rows: list[Key]
    tokens: int


@dataclass(frozen=True)
class TrackedCollator:
    """A collator whose batches also hold `rows`, as pairs (source, row), and `tokens`."""

    collate: Callable[[Sequence[Row]], Mapping[str, Any]]
    tokens: Callable[[Row], int]  # the tokens of a row that the model computes, without padding

    def __call__(self, rows: Sequence[Row]) -> dict[str, Any]:
        return {
            **self.collate(rows),
            ROWS: [key for row in rows for key in _keys(row)],
            TOKENS: sum(self.tokens(row) for row in rows),
        }


def _keys(row: Row) -> list[Key]:
    """A packed row holds several rows of the data."""
    if isinstance(row["row"], list):
        return list(zip(row["source"], row["row"], strict=True))
    return [(row["source"], row["row"])]
