"""What a run tells a tracker, and what a tracker must do with it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DONE, PRUNED, FAILED, KILLED = "done", "pruned", "failed", "killed"  # how a run can end


@dataclass(frozen=True)
class Dataset:
    """A dataset that a run reads."""

    name: str
    digest: str  # of its tokenized rows
    use: str = "train"  # or eval


@dataclass(frozen=True)
class FinalModel:
    """The trained model of a run, as it is saved."""

    folder: Path
    digests: dict[str, str]  # file below the folder -> SHA-256


@dataclass(frozen=True)
class Table:
    """A Parquet file of the run, told of by the step of which it is. A resumed run may have taken it away again."""

    name: str
    file: Path
    step: int

    def columns(self) -> dict[str, list[Any]]:
        """Its columns; empty where the file is gone."""
        import pyarrow.parquet as pq

        try:
            return dict(pq.read_table(self.file).to_pydict())
        except FileNotFoundError:
            return {}


@dataclass(frozen=True)
class RunInfo:
    """One run as the trackers see it."""

    out: Path  # the run's folder; it exists
    outputs: Path  # the folder above the stages' folders, the same for all trials of a sweep
    name: str = ""  # empty takes a trial's varied parameters, or the name of the run's folder
    params: dict[str, object] = field(default_factory=dict)  # "group.name" -> value, without the secrets
    tags: dict[str, str] = field(default_factory=dict)  # stage, method, model, data, sweep
    git: dict[str, str] = field(default_factory=dict)  # commit and what else is known of the code's state
    # What was logged before the checkpoint, each with its `step`; None where nothing is resumed.
    logged: Sequence[Mapping[str, Any]] | None = None
    sweep: str | None = None  # name of the sweep this run is a trial of
    sweep_folder: Path | None = None  # its folder, which tells it from another sweep of that name
    study: str | None = (
        None  # the same for all its trials, and for none of another sweep; None of an older version
    )
    varied: Sequence[str] = ()  # a trial's overrides that differ between trials: `method.lora_rank=8`
    datasets: Sequence[Dataset] = ()


class Logged:
    """The last step of each metric that a tracker holds, of earlier processes of a resumed run too."""

    def __init__(self, last: Mapping[str, int] | None = None):
        self.last = dict(last or {})

    def fresh(self, metrics: dict[str, float], step: int) -> dict[str, float]:
        """The metrics that aren't held at this step yet; they count as held from then on.

        Left out are the steps that a resumed run does again, and what the trainer reports with several lines
        of one step (`epoch`).
        """
        fresh = {key: value for key, value in metrics.items() if step > self.last.get(key, -1)}
        self.last.update(dict.fromkeys(fresh, step))
        return fresh


class Tracker(ABC):
    """A place that takes one run: `start` once, `log` often, `finish` once.

    A run that is resumed goes on where it is tracked already, and no step of a metric is in its history twice.
    Any call may raise: the tracker is left out from then on and the run goes on.
    """

    name: str  # the choice: `tracking=wandb`

    @abstractmethod
    def start(self, info: RunInfo) -> None:
        """Open the run."""

    @abstractmethod
    def log(self, metrics: dict[str, float], step: int) -> None:
        """Take the metrics of a step; more calls may follow for the same step, none for a lower one."""

    def log_table(self, table: Table) -> None:  # noqa: B027 -- most show none
        """Take a table, unless it is held already."""

    def log_model(self, model: FinalModel) -> None:  # noqa: B027 -- most keep none
        """Keep the trained model; comes before `finish`, and may take as long as it needs."""

    @abstractmethod
    def finish(self, status: str, summary: dict[str, float], files: list[Path]) -> None:
        """Close the run: `status` is done, pruned, failed or killed, `summary` the last value of each metric.

        `files` are small files of the run worth keeping beside the metrics, such as plots.
        """
