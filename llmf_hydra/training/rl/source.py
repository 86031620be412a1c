"""The buffer as what a trainer reads batches from: it is filled when the training comes to it."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import IterableDataset

from llmf_hydra.training.rl.buffer import Buffer
from llmf_hydra.training.rl.plan import Plan


class RolloutSource(IterableDataset):
    """Batches of rollouts, in the order of the plan.

    `step` tells how many optimizer steps are done. A resumed epoch begins with as many empty batches as were
    trained already: Transformers' trainer skips them without a look.
    """

    def __init__(
        self, plan: Plan, collect: Callable[[int], Buffer], step: Callable[[], int], device: torch.device
    ):
        self._plan, self._collect, self._step, self._device = plan, collect, step, device
        self.number = -1  # of the buffer
        self.buffer: Buffer | None = None

    def __len__(self) -> int:
        """Batches an epoch."""
        return self._plan.steps_an_epoch * self._plan.batches_a_step

    def __iter__(self) -> Iterator[dict[str, object]]:
        step, epoch = self._step(), self._plan.steps_an_epoch
        done = step % epoch
        yield from ({} for _ in range(done * self._plan.batches_a_step))
        for number in range(step, step - done + epoch):
            buffer = self._filled(number // self._plan.steps_a_buffer)
            yield from (buffer.take(rows) for rows in self._plan.batches(number))

    def state_dict(self) -> dict[str, object]:
        """The buffer that is being trained, and its number."""
        return {"number": self.number, "buffer": self.buffer.state() if self.buffer is not None else None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on within a saved buffer."""
        self.number = int(state["number"])
        self.buffer = Buffer.from_state(state["buffer"], self._device) if state["buffer"] else None

    def _filled(self, number: int) -> Buffer:
        if self.buffer is None or self.number != number:
            self.buffer, self.number = self._collect(number), number
        return self.buffer
