"""Metrics as exact sums: they add up on the device, and are read when a line is logged."""

from collections.abc import Iterator
from typing import Any

import torch
from accelerate.utils import gather_object

EVAL = "eval_"


class MetricSums:
    """Sums and counts of metrics by name. An evaluation's names begin with `eval_`, so that it and the training,
    whose lines it may fall between, keep apart."""

    def __init__(self) -> None:
        self._totals: dict[str, torch.Tensor] = {}
        self._counts: dict[str, torch.Tensor] = {}

    def add(self, name: str, values: torch.Tensor, where: torch.Tensor | None = None) -> None:
        """Add values of any shape, or those of them at which the mask `where` is true."""
        if where is None:
            total = values.sum().double()
            count = torch.tensor(values.numel(), dtype=torch.float64)  # on the CPU: nothing is copied
        else:
            total, count = torch.where(where, values, 0).double().sum(), where.sum().double()
        self._totals[name] = self._totals[name] + total if name in self._totals else total
        self._counts[name] = self._counts[name] + count if name in self._counts else count

    def take_means(self, prefix: str = "") -> dict[str, float]:
        """The means since the last call, over all processes, by name in alphabetical order.

        `prefix` is empty for those of training, and for those of an evaluation what replaces `eval_`: its own
        prefix (`eval_NAME_` of a dataset that is evaluated apart). A mean of no values is left out.
        """
        names = [name for name in self._totals if name.startswith(EVAL) == bool(prefix)]
        mine = {name: self._numbers(name) for name in names}
        for name in names:
            del self._totals[name], self._counts[name]
        whole: dict[str, tuple[float, float]] = {}
        for name, (total, count) in _all(mine):
            before = whole.get(name, (0.0, 0.0))
            whole[name] = before[0] + total, before[1] + count
        shown = {name: prefix + name.removeprefix(EVAL) if prefix else name for name in sorted(whole)}
        return {shown[name]: whole[name][0] / whole[name][1] for name in shown if whole[name][1] > 0}

    def state_dict(self) -> dict[str, object]:
        """The sums that aren't logged yet."""
        return {name: self._numbers(name) for name in self._totals}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from saved sums."""
        self._totals = {name: torch.tensor(total, dtype=torch.float64) for name, (total, _) in state.items()}
        self._counts = {name: torch.tensor(count, dtype=torch.float64) for name, (_, count) in state.items()}

    def _numbers(self, name: str) -> tuple[float, float]:
        return float(self._totals[name]), float(self._counts[name])


def _all(mine: dict[str, tuple[float, float]]) -> Iterator[tuple[str, tuple[float, float]]]:
    """The sums of all processes."""
    for sums in gather_object([mine]):
        yield from sums.items()
