"""Which prompts a buffer holds and in which order its rows are trained: a function of seed and step."""

import math
from dataclasses import dataclass

import numpy as np
import torch

USES = ("epoch", "pass", "rollout", "evaluation")  # of random numbers


@dataclass(frozen=True)
class Plan:
    """The order of a run. Nothing of it is state: a resumed run asks the same questions and goes on."""

    prompts: int  # rows of the data
    rows_a_batch: int  # rows of a forward pass
    batches_a_step: int  # forward passes of an optimizer step
    buffer_size: int  # rollout batches a buffer, each of the rows of an optimizer step
    passes: int  # over each buffer
    seed: int
    shuffle: bool = True
    world: int = 1  # processes, which share the prompts of a buffer
    rank: int = 0

    @property
    def rows_a_step(self) -> int:
        return self.rows_a_batch * self.batches_a_step

    @property
    def steps_a_buffer(self) -> int:
        return self.buffer_size * self.passes

    @property
    def steps_an_epoch(self) -> int:
        """Optimizer steps in which each prompt is answered once; the last buffer goes on into the next."""
        return (
            math.ceil(self.prompts / (self.rows_a_step * self.buffer_size * self.world)) * self.steps_a_buffer
        )

    def rollouts(self, buffer: int) -> list[list[int]]:
        """The prompts of a buffer's rollout batches, as numbers of rows of the data."""
        rows = self.rows_a_step
        first = (buffer * self.world + self.rank) * self.buffer_size * rows
        return [self._prompts(first + rows * batch, rows) for batch in range(self.buffer_size)]

    def batches(self, step: int) -> list[list[int]]:
        """The rows of the buffer that each forward pass of an optimizer step trains on."""
        buffer, within = divmod(step, self.steps_a_buffer)
        number, part = divmod(within, self.buffer_size)
        order = self._order(self.rows_a_step * self.buffer_size, "pass", buffer * self.passes + number)
        rows = order[part * self.rows_a_step : (part + 1) * self.rows_a_step]
        return [rows[at : at + self.rows_a_batch] for at in range(0, len(rows), self.rows_a_batch)]

    def seed_of(self, use: str, number: int, batch: int = 0) -> int:
        """A 64-bit seed of its own for each use, its number, its batch and each process.

        The epochs' order is the exception: it is the same in all processes, which share its prompts.
        """
        rank = 0 if use == "epoch" else self.rank + 1
        mixed = np.random.SeedSequence((self.seed, USES.index(use), number, batch, rank))
        return int(mixed.generate_state(1, np.uint64)[0])

    def _prompts(self, first: int, count: int) -> list[int]:
        """Prompts `first` to `first + count` of an endless row of epochs, each in an order of its own."""
        found: list[int] = []
        while len(found) < count:
            epoch, at = divmod(first + len(found), self.prompts)
            found += self._order(self.prompts, "epoch", epoch)[at : at + count - len(found)]
        return found

    def _order(self, count: int, use: str, number: int) -> list[int]:
        if not self.shuffle:
            return list(range(count))
        generator = torch.Generator().manual_seed(self.seed_of(use, number))
        return torch.randperm(count, generator=generator).tolist()
