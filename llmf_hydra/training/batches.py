"""Collators whose batches say which rows of the data they hold, and how many tokens the model computes."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypedDict, TypeVar, cast

from torch.utils.data import Sampler

Tokens = TypeVar("Tokens", bound=Mapping[str, object])  # the token columns of a row, by the kind of training
Key = tuple[int, int]  # source and row
ROWS, TOKENS = "rows", "tokens"  # what a batch holds beside the inputs of the model


class Tracked(TypedDict):
    """What a batch holds beside the inputs of the model, until a step begins."""

    rows: list[Key]
    tokens: int


@dataclass(frozen=True)
class TrackedCollator(Generic[Tokens]):
    """A collator whose batches also hold `rows`, as pairs (source, row), and `tokens`."""

    collate: Callable[[Sequence[Tokens]], Mapping[str, object]]
    tokens: Callable[[Tokens], int]  # the tokens of a row that the model computes, without padding

    def __call__(self, rows: Sequence[Tokens]) -> dict[str, object]:
        return {
            **self.collate(rows),
            ROWS: [key for row in rows for key in _keys(row)],
            TOKENS: sum(self.tokens(row) for row in rows),
        }


class LongestFirst(Sampler[int]):
    """The rows of a dataset by their length, so that those of a batch need little padding."""

    def __init__(self, rows: Iterable[Any], tokens: Callable[[Any], int]):
        lengths = [tokens(row) for row in rows]
        self._order = sorted(range(len(lengths)), key=lambda row: -lengths[row])

    def __iter__(self) -> Iterator[int]:
        return iter(self._order)

    def __len__(self) -> int:
        return len(self._order)


def _keys(row: Mapping[str, object]) -> list[Key]:
    """A packed row holds several rows of the data."""
    sources, numbers = row["source"], row["row"]
    if isinstance(sources, list) and isinstance(numbers, list):
        return list(zip(sources, numbers, strict=True))
    return [cast("Key", (sources, numbers))]
