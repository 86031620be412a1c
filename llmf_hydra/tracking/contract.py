"""What a run tells a tracker, and what a tracker must do with it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path

DONE, PRUNED, FAILED, KILLED = "done", "pruned", "failed", "killed"  # how a run can end


@dataclass(frozen=True)
class RunInfo:
    """One run as the trackers see it."""

    out: Path  # the run's folder; it exists
    outputs: Path  # the folder above the stages' folders, the same for all trials of a sweep
    name: str = ""  # empty takes the name of the run's folder
    params: dict[str, object] = field(default_factory=dict)  # "group.name" -> value, without the secrets
    tags: dict[str, str] = field(default_factory=dict)  # stage, method, model, data, sweep
    git: dict[str, str] = field(default_factory=dict)  # commit and what else is known of the code's state
    sweep: str | None = None  # id of the sweep this run is a trial of; no other sweep in the store has it


class Tracker(ABC):
    """A place that takes one run: `start` once, `log` often, `finish` once.

    Any call may raise: the tracker is left out from then on and the run goes on.
    """

    name: str  # the choice: `tracking=wandb`

    @abstractmethod
    def start(self, info: RunInfo) -> None:
        """Open the run."""

    @abstractmethod
    def log(self, metrics: dict[str, float], step: int) -> None:
        """Take the metrics of a step; more calls may follow for the same step, none for a lower one."""

    @abstractmethod
    def finish(self, status: str, summary: dict[str, float], files: list[Path]) -> None:
        """Close the run: `status` is done, pruned, failed or killed, `summary` the last value of each metric.

        `files` are small files of the run worth keeping beside the metrics, such as plots.
        """
