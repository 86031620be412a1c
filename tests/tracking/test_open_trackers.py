"""The trackers as one: chosen by the config, closed on every path, never the training's end."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from llmf_hydra.errors import Refused
from llmf_hydra.tracking.contract import RunInfo, Tracker
from llmf_hydra.tracking.detached import Detached, TrackerError
from llmf_hydra.tracking.files import FilesTracker, read_log
from llmf_hydra.tracking.open import Trackers, named, open_trackers


class Notes(Tracker):
    """Writes each call into a file, and fails or hangs where it is told to; in any process."""

    name = "notes"

    def __init__(self, path: Path, fail_in: str = "", hang_in: str = ""):
        self.path, self.fail_in, self.hang_in = path, fail_in, hang_in

    def note(self, method: str, *facts: Any) -> None:
        if method == self.fail_in:
            raise ValueError(f"{method} can't be done")
        if method == self.hang_in:
            time.sleep(600)
        with self.path.open("a") as file:
            file.write(json.dumps([method, *facts]) + "\n")

    def start(self, info: RunInfo) -> None:
        self.note("start", info.name, os.getpid(), os.getpgrp())

    def log(self, metrics: dict[str, float], step: int) -> None:
        self.note("log", metrics, step)

    def finish(self, status: str, summary: dict[str, float], files: list[Path]) -> None:
        self.note("finish", status, summary, [str(file) for file in files])

    def read(self) -> list[Any]:
        return [json.loads(line) for line in self.path.read_text().splitlines()]


@pytest.fixture
def importable(monkeypatch):
    """Lets a tracker's process import this file."""
    here = Path(__file__)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(here.parents[1]), str(here.parents[2])]))


def metrics(out: Path) -> dict[str, float]:
    return json.loads((out / "metrics.json").read_text())


def wait_for(condition, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


# --- the composite


def test_the_summary_is_the_last_value_of_each_metric_and_what_was_added(make_tracking, make_info):
    info = make_info()
    with open_trackers(make_tracking(), info) as trackers:
        trackers.log({"loss": 0.7, "epoch": 0.1}, 10)
        trackers.log({"eval_loss": 0.65}, 10)
        trackers.log({"loss": 0.6}, 20)
        trackers.summarize({"rouge": 31.0})
    assert metrics(info.out) == {"step": 20, "loss": 0.6, "epoch": 0.1, "eval_loss": 0.65, "rouge": 31.0}


@pytest.mark.parametrize(
    ("end", "status"),
    [
        (None, "done"),
        (ValueError("no"), "failed"),
        (KeyboardInterrupt(), "killed"),
        (SystemExit(1), "killed"),
    ],
)
def test_every_end_closes_all_with_its_status(tmp_path, end, status):
    notes = Notes(tmp_path / "notes")
    raised = None
    try:
        with Trackers([notes]) as trackers:
            trackers.attach(Path("plot.png"))
            if end is not None:
                raise end
    except BaseException as error:
        raised = error
    assert raised is end
    assert notes.read()[-1] == ["finish", status, {}, ["plot.png"]]


def test_a_second_finish_does_nothing(tmp_path):
    notes = Notes(tmp_path / "notes")
    trackers = Trackers([notes])
    trackers.finish("killed")
    trackers.finish("done")
    assert notes.read() == [["finish", "killed", {}, []]]


@pytest.mark.parametrize("fail_in", ["start", "log", "finish"])
def test_a_tracker_that_raises_warns_once_and_the_others_go_on(tmp_path, make_info, capsys, fail_in):
    info = make_info()
    bad, good = Notes(tmp_path / "bad", fail_in), Notes(tmp_path / "good")
    trackers = Trackers([FilesTracker(), bad, good])
    trackers.start(info)
    for step in range(3):
        trackers.log({"loss": 0.5}, step)
    trackers.finish("done")
    assert [call[0] for call in good.read()] == ["start", "log", "log", "log", "finish"]
    assert capsys.readouterr().err.count("warning:") == 1
    records = read_log(info.out / "log.jsonl")
    assert [record["step"] for record in records if "step" in record] == [0, 1, 2]
    assert metrics(info.out) == {"step": 2, "loss": 0.5}
    warnings = [record["warning"] for record in records if "warning" in record]
    assert warnings == [f"tracking=notes is left out from here on: {fail_in} can't be done"]


def test_the_run_goes_on_without_its_own_files(make_tracking, make_info, capsys):
    info = make_info()
    (info.out / "log.jsonl").mkdir()
    with open_trackers(make_tracking(), info) as trackers:
        trackers.log({"loss": 0.7}, 1)
        trackers.log({"loss": 0.7}, 2)
    assert capsys.readouterr().err.count("tracking=files is left out from here on") == 1


def test_its_own_files_can_not_be_turned_off(make_tracking, make_info):
    with (
        pytest.raises(Refused, match=r"tracking\.files=false: the run's own files are always on"),
        open_trackers(make_tracking(files=False), make_info()),
    ):
        pass


def test_other_processes_of_a_run_track_nothing(make_tracking, make_info):
    info = make_info()
    with open_trackers(make_tracking(mlflow=True, wandb=True), info, main_process=False) as trackers:
        trackers.log({"loss": 0.7}, 1)
    assert list(info.out.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "name", "expected"),
    [("mine", "theirs", "mine"), (None, "theirs", "theirs"), (None, "", "run1")],
)
def test_the_name_is_the_configs_or_the_runs_or_the_folders(make_tracking, make_info, given, name, expected):
    assert named(make_info(name=name), make_tracking(run_name=given)).name == expected


# --- a tracker in a process of its own


@pytest.mark.usefixtures("importable")
def test_a_detached_tracker_gets_all_calls_in_order_in_another_process(tmp_path, make_info):
    notes = Notes(tmp_path / "notes")
    tracker = Detached(notes)
    tracker.start(make_info(name="n"))
    for step in range(200):
        tracker.log({"loss": 1.0}, step)
    tracker.finish("done", {"loss": 1.0}, [Path("a")])
    first, *logs, last = notes.read()
    assert first[:2] == ["start", "n"]
    assert first[2] != os.getpid()
    assert first[3] != os.getpgrp()  # a Ctrl-C at the terminal is for the training alone
    assert [log[2] for log in logs] == list(range(200))
    assert last == ["finish", "done", {"loss": 1.0}, ["a"]]


@pytest.mark.usefixtures("importable")
@pytest.mark.parametrize("fail_in", ["start", "log", "finish"])
def test_a_detached_tracker_that_fails_says_why(tmp_path, make_info, fail_in):
    tracker = Detached(Notes(tmp_path / "notes", fail_in))
    tracker.start(make_info())
    tracker.log({"loss": 1.0}, 1)
    with pytest.raises(TrackerError, match=rf"^ValueError: {fail_in} can't be done$"):
        tracker.finish("done", {}, [])


@pytest.mark.usefixtures("importable")
def test_a_detached_tracker_that_fails_between_two_calls_fails_the_next(tmp_path, make_info):
    tracker = Detached(Notes(tmp_path / "notes", "start"))
    tracker.start(make_info())
    wait_for(lambda: tracker._process.poll() is not None)
    with pytest.raises(TrackerError, match=r"^ValueError: start can't be done$"):
        tracker.log({"loss": 1.0}, 1)


@pytest.mark.usefixtures("importable")
def test_a_detached_tracker_that_hangs_holds_up_only_the_end(tmp_path, make_info):
    tracker = Detached(Notes(tmp_path / "notes", hang_in="start"), patience=0.5)
    began = time.monotonic()
    tracker.start(make_info())
    for step in range(5000):  # far more than a pipe holds
        tracker.log({"loss": 1.0, "a long name of a metric": 2.0}, step)
    with pytest.raises(TrackerError, match=r"^stuck for 0\.5 seconds at the end of the run$"):
        tracker.finish("done", {}, [])
    assert time.monotonic() - began < 20


@pytest.mark.usefixtures("importable")
def test_the_run_is_closed_as_killed_where_the_training_is(tmp_path, make_info):
    notes = Notes(tmp_path / "notes")
    info = make_info()
    training = os.fork()
    if training == 0:
        tracker = Detached(notes)
        tracker.start(info)
        tracker.log({"loss": 1.0}, 1)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(training, 0)
    wait_for(lambda: notes.path.exists() and notes.read()[-1][0] == "finish")
    assert notes.read()[1:] == [["log", {"loss": 1.0}, 1], ["finish", "killed", {}, []]]
