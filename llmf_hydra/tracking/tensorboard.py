"""TensorBoard: event files in the run's `tensorboard/`."""

import time
from importlib import import_module
from pathlib import Path
from typing import Any

from llmf_hydra.tracking.contract import DONE, PRUNED, Logged, RunInfo, Tracker

FOLDER = "tensorboard"


class TensorboardTracker(Tracker):
    """Writes scalars and hyperparameters with TensorBoard's own writer, which doesn't need torch."""

    name = "tensorboard"

    def start(self, info: RunInfo) -> None:
        """Begin an event file. A resumed run has one more, without the steps that the earlier ones hold."""
        from tensorboard.plugins.hparams import summary_v2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        folder = info.out / FOLDER
        self._logged = Logged(last_steps(folder))
        self._latest: dict[str, float] = {}
        self._step = 0
        self._writer = EventFileWriter(str(folder))
        hparams = {key: _plain(value) for key, value in info.params.items()}
        self._write(summary_v2.hparams_pb(hparams, trial_id=info.name), 0)

    def log(self, metrics: dict[str, float], step: int) -> None:
        self._step = step
        self._latest.update(metrics)
        fresh = self._logged.fresh(metrics, step)
        if fresh:
            summary = _messages("compat.proto.summary").Summary
            points = [summary.Value(tag=key, simple_value=value) for key, value in fresh.items()]
            self._write(summary(value=points), step)

    def finish(self, status: str, summary: dict[str, float], files: list[Path]) -> None:
        from tensorboard.plugins.hparams import metadata

        extra = {key: value for key, value in summary.items() if self._latest.get(key) != value}
        if extra:
            self.log(extra, self._step)
        statuses, data = _messages("plugins.hparams.api"), _messages("plugins.hparams.plugin_data")
        how = statuses.STATUS_SUCCESS if status in (DONE, PRUNED) else statuses.STATUS_FAILURE
        session = data.SessionEndInfo(status=how, end_time_secs=time.time())
        ended = data.HParamsPluginData(session_end_info=session)
        message = _messages("compat.proto.summary").Summary
        # The plugin's own function for this needs TensorFlow.
        value = message.Value(
            tag=metadata.SESSION_END_INFO_TAG,
            metadata=metadata.create_summary_metadata(ended),
            tensor=metadata.NULL_TENSOR,
        )
        self._write(message(value=[value]), self._step)
        self._writer.close()

    def _write(self, summary: object, step: int) -> None:
        event = _messages("compat.proto.event").Event
        self._writer.add_event(event(wall_time=time.time(), step=step, summary=summary))
        self._writer.flush()


def _messages(name: str) -> Any:
    """A module of TensorBoard's generated messages, which have no types."""
    return import_module(f"tensorboard.{name}_pb2")


def last_steps(folder: Path) -> dict[str, int]:
    """The last step of each metric in the event files of a folder."""
    if not folder.is_dir():
        return {}
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 1})  # keeps the last of each
    events.Reload()
    return {tag: events.Scalars(tag)[-1].step for tag in events.Tags()["scalars"]}


def _plain(value: Any) -> bool | float | str:
    """What TensorBoard takes as a hyperparameter."""
    return value if isinstance(value, bool | int | float | str) else "null" if value is None else str(value)
