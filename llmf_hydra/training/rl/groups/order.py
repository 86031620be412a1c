"""Which prompts come next."""

from collections.abc import Callable, Generator
from typing import Any

from trl.trainer.utils import RepeatSampler


class EpochOrder(RepeatSampler):
    """TRL's order of prompts, of which that of an epoch follows from the seed and the epoch's number alone.

    TRL's own generator goes on from epoch to epoch, so that a run resumed in the second would begin with the first's.
    """

    def __init__(self, epoch: Callable[[], int], seed: int, **own: Any) -> None:
        super().__init__(**own, seed=seed)
        self._epoch, self._seed = epoch, seed

    def __iter__(self) -> Generator[int, Any, None]:
        if self.shuffle:
            self.generator.manual_seed(self._seed + self._epoch())
        yield from super().__iter__()
