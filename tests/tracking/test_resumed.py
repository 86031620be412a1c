"""A run that is killed and resumed is one tracked run, with the history of a run that nothing disturbed."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.command_line import CLOCK, Cli
from support.killed_runs import has_logged, kill_when
from support.wandb_files import history, logs, of_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from llmf_hydra.tracking.contract import Logged
from llmf_hydra.tracking.files import FilesTracker, read_log

WORDS = ["stage=dpo", "model=tiny", "data.max_samples=60", "data.val_size=8", "training.logging_steps=1",
         "training.eval_steps=4", "training.save_steps=4", "training.max_steps=12", "training.learning_rate=0.01",
         "training.plot_loss=false", "tracking=[wandb,mlflow,tensorboard]"]  # fmt: skip
Point = tuple[str, int, float]  # metric, step, value


@pytest.mark.slow
@pytest.mark.parametrize("lines", [6, 11])  # of the log; the checkpoints are those of steps 4 and 8
def test_a_killed_run_goes_on_in_its_tracked_run(
    lines: int, cli: Cli, environment: dict[str, str], tmp_path: Path
) -> None:
    killed = tmp_path / "killed"
    kill_when(has_logged(lines), WORDS, killed, environment)
    resumed = cli("resume", "killed")  # at once: the trackers of the killed run are still at work
    assert resumed.returncode == 0 and "left out" not in resumed.stderr, resumed.stderr
    whole = tmp_path / "whole"
    assert cli(*WORDS, "hydra.run.dir=whole", "tracking.project=whole").returncode == 0

    assert len(logs(killed)) == 2
    ids = {record.run.run_id for log in logs(killed) for record in of_file(log) if record.HasField("run")}
    assert len(ids) == 1
    assert wandb_points(killed) == wandb_points(whole)
    assert len(list((killed / "tensorboard").iterdir())) == 2
    assert tensorboard_points(killed) == tensorboard_points(whole)

    store = tmp_path / "outputs" / "mlflow.db"
    runs = "runs JOIN experiments USING (experiment_id)"
    assert rows(store, f"SELECT experiments.name, status FROM {runs} ORDER BY 1") == [
        ("llmf_hydra", "FINISHED"),
        ("whole", "FINISHED"),
    ]
    assert mlflow_points(store, killed) == mlflow_points(store, whole)
    assert not list(killed.glob(".*"))


def wandb_points(out: Path) -> list[Point]:
    """All that was logged, in the order of the steps: twice what was logged twice."""
    return sorted(
        (key, row["_step"], value)
        for log in logs(out)
        for row in history(log)
        for key, value in row.items()
        if not key.startswith("_") and not CLOCK.search(key)
    )


def tensorboard_points(out: Path) -> list[Point]:
    events = EventAccumulator(
        str(out / "tensorboard"), size_guidance={"scalars": 0}, purge_orphaned_data=False
    )
    events.Reload()
    tags = [tag for tag in events.Tags()["scalars"] if not CLOCK.search(tag)]
    found = sorted((tag, event.step, event.value) for tag in tags for event in events.Scalars(tag))
    assert {"loss", "eval_loss"} <= {*tags}
    return found


def mlflow_points(store: Path, out: Path) -> list[Point]:
    run = (out / "mlflow_run_id.txt").read_text()
    found = rows(store, f"SELECT key, step, value FROM metrics WHERE run_uuid = '{run}'")
    return sorted(point for point in found if not CLOCK.search(point[0]))


def rows(store: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(store)) as database:
        return database.execute(query).fetchall()


def test_only_what_comes_after_the_last_step_of_a_metric_is_fresh() -> None:
    logged = Logged({"loss": 4})
    assert logged.fresh({"loss": 1.0, "eval_loss": 2.0}, 4) == {"eval_loss": 2.0}
    assert logged.fresh({"loss": 1.0}, 5) == {"loss": 1.0}
    assert logged.fresh({"loss": 1.0, "grad_norm": 1.0}, 5) == {"grad_norm": 1.0}  # another line of this step


def test_a_log_goes_on_from_its_checkpoint(make_info: Any) -> None:
    """Lines after the checkpoint go, also those of its own step; warnings and what came before it stay.

    One that a full disk didn't take, that of step 3, is made up for.
    """
    before = ((2, "loss"), (3, "loss"), (4, "loss"), (4, "eval_loss"))
    info = make_info(logged=[{"step": step, metric: 0.5, "text": "no metric"} for step, metric in before])
    lines = [
        {"step": 2, "loss": 0.7},
        {"warning": "w"},
        {"step": 4, "loss": 0.6},
        {"step": 4, "eval_loss": 0.5},
        {"step": 4, "train_loss": 0.6},
        {"step": 6, "loss": 0.5},
    ]
    text = "".join(json.dumps({"time": 1, **line}) + "\n" for line in lines)
    (info.out / "log.jsonl").write_text(text + '{"time": 1, "ste')
    tracker = FilesTracker()
    tracker.start(info)
    tracker.log({"loss": 0.4}, 6)
    seen = [
        (record.get("step"), *sorted({*record} - {"step", "time"}))
        for record in read_log(info.out / "log.jsonl")
    ]
    assert seen == [
        (2, "loss"),
        (None, "warning"),
        (3, "loss"),
        (4, "loss"),
        (4, "eval_loss"),
        (6, "loss"),
    ]
