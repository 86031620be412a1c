"""`open_trackers`: the trackers a config chose, as one that never fails."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

from llmf_hydra.config.groups.tracking import TrackingConfig
from llmf_hydra.config.secrets import masked_text
from llmf_hydra.errors import Problem, Pruned, Refused
from llmf_hydra.tracking.contract import DONE, FAILED, KILLED, PRUNED, FinalModel, RunInfo, Table, Tracker
from llmf_hydra.tracking.detached import Detached
from llmf_hydra.tracking.files import FilesTracker
from llmf_hydra.tracking.mlflow import MlflowTracker
from llmf_hydra.tracking.names import trial_name
from llmf_hydra.tracking.tensorboard import TensorboardTracker
from llmf_hydra.tracking.wandb import WandbTracker


class Trackers:
    """Several trackers as one. One that raises is warned of once and left out; the others go on.

    As a context it closes them all, whatever way its end comes: done, failed (by an Exception) or killed (by
    anything else, such as Ctrl-C).
    """

    def __init__(self, trackers: Sequence[Tracker]):
        self._active = list(trackers)
        self._summary: dict[str, float] = {}
        self._files: list[Path] = []
        self._finished = False

    def start(self, info: RunInfo) -> None:
        self._each(lambda tracker: tracker.start(info))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        self.finish(_how_it_ended(kind))

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Log the metrics of a step; the last value of each is part of the summary."""
        self._summary.update(metrics)
        self._each(lambda tracker: tracker.log(metrics, step))

    def log_table(self, table: Table) -> None:
        """Show a table of the run in the trackers that show tables."""
        self._each(lambda tracker: tracker.log_table(table))

    def summarize(self, metrics: dict[str, float]) -> None:
        """Put results that belong to no step into the summary (`metrics.json`)."""
        self._summary.update(metrics)

    def attach(self, *files: Path) -> None:
        """Have small files of the run (plots, its config) kept beside its metrics."""
        self._files.extend(files)

    def log_model(self, model: FinalModel) -> None:
        """Have the trained model kept by the trackers that keep models."""
        self._each(lambda tracker: tracker.log_model(model))

    def finish(self, status: str) -> None:
        """Close all trackers; a second call does nothing."""
        if not self._finished:
            self._finished = True
            self._each(lambda tracker: tracker.finish(status, dict(self._summary), list(self._files)))

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for tracker in list(self._active):
            try:
                call(tracker)
            except Exception as error:
                self._active.remove(tracker)
                reason = str(error) or type(error).__name__
                self._warn(f"tracking={tracker.name} is left out from here on: {reason}")

    def _warn(self, sentence: str) -> None:
        text = masked_text(sentence)
        print(f"warning: {text}", file=sys.stderr)
        for tracker in self._active:
            if isinstance(tracker, FilesTracker):
                tracker.warn(text)


def _how_it_ended(kind: type[BaseException] | None) -> str:
    if kind is None:
        return DONE
    if issubclass(kind, Pruned):
        return PRUNED
    return FAILED if issubclass(kind, Exception) else KILLED


def open_trackers(tracking: TrackingConfig, info: RunInfo, *, main_process: bool = True) -> Trackers:
    """The chosen trackers, started: `with open_trackers(...) as trackers`.

    In a process that isn't the run's main one nothing is tracked. Raises Refused where the run's own files
    are turned off.
    """
    trackers = Trackers(_chosen(tracking) if main_process else [])
    trackers.start(named(info, tracking))
    return trackers


def named(info: RunInfo, tracking: TrackingConfig) -> RunInfo:
    """The run with its name: the config's, its own, a trial's varied parameters, or that of its folder."""
    return replace(info, name=tracking.run_name or info.name or trial_name(info.varied) or info.out.name)


def _chosen(tracking: TrackingConfig) -> list[Tracker]:
    if not tracking.files:
        raise Refused([Problem("tracking.files", False, "the run's own files are always on", "leave it out")])
    chosen: list[Tracker] = [FilesTracker()]
    if tracking.wandb and not tracking.wandb_disabled:
        chosen.append(Detached(WandbTracker(tracking)))
    if tracking.mlflow:
        chosen.append(Detached(MlflowTracker(tracking)))
    if tracking.tensorboard:
        chosen.append(Detached(TensorboardTracker()))
    return chosen
