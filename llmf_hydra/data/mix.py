"""Several datasets as one, and rows held out of it."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from datasets import Dataset, IterableDataset, concatenate_datasets, interleave_datasets

from llmf_hydra.config.groups.data import DataConfig
from llmf_hydra.errors import Problem, Refused

Rows = TypeVar("Rows", Dataset, IterableDataset)
_STOPS = {"interleave_under": "first_exhausted", "interleave_over": "all_exhausted"}


def mixed(parts: Sequence[Rows], data: DataConfig, seed: int) -> Rows:
    """Datasets (or streams) one after another, or taken in turn by the shares of `data.interleave_probs`.

    under stops when the first dataset is used up; over goes on, and repeats the shorter ones, until all are.
    """
    if len(parts) == 1:
        return parts[0]
    if data.mix_strategy == "concat":
        return concatenated(parts)
    given = data.shares or None
    return interleave_datasets(
        list(parts),
        probabilities=given,
        seed=seed,
        stopping_strategy=_STOPS[data.mix_strategy],  # pyright: ignore
    )


def concatenated(parts: Sequence[Rows]) -> Rows:
    """Datasets (or streams) one after another. Evaluation sees each row once, however training is mixed."""
    return concatenate_datasets(list(parts))


def split(rows: Dataset, val_size: float, seed: int) -> tuple[Dataset, Dataset]:
    """Rows to train on and rows held out: a share below 1, or a count. The same for the same seed."""
    count = int(val_size) if val_size >= 1 else max(1, round(len(rows) * val_size))
    if count >= len(rows):
        what = f"holds out {count} of {len(rows)} rows"
        raise Refused([Problem("data.val_size", val_size, what, "leave rows to train on")])
    order = np.random.default_rng(seed).permutation(len(rows))
    return rows.select(np.sort(order[count:])), rows.select(np.sort(order[:count]))


def sample(rows: Dataset, count: int, seed: int) -> Dataset:
    """`count` rows at random, each once; all of them where there are no more."""
    return rows.select(np.sort(np.random.default_rng(seed).permutation(len(rows))[:count]))
