"""MLflow: what is in its store afterwards, read from the SQLite file itself."""

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from llmf_hydra.tracking.files import read_log
from llmf_hydra.tracking.mlflow import MlflowTracker
from llmf_hydra.tracking.open import named, open_trackers

TRIAL = """
import sys, time
from pathlib import Path
from llmf_hydra.config.groups.tracking import TrackingConfig
from llmf_hydra.tracking.contract import RunInfo
from llmf_hydra.tracking.open import open_trackers

outputs, number = Path(sys.argv[1]), sys.argv[2]
out = outputs / "dpo" / "sweep" / number
out.mkdir(parents=True)
tracking = TrackingConfig(mlflow=True, project="p", mlflow_tracking_uri=None)
info = RunInfo(out=out, outputs=outputs, tags={"stage": "dpo"}, sweep="dpo/sweep")
print("ready", flush=True)
sys.stdin.readline()
with open_trackers(tracking, info) as trackers:
    trackers.log({"loss": float(number)}, 1)
    if number == "3":
        sys.exit("this one fails")
"""


def rows(store: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(store)) as database:
        return database.execute(query).fetchall()


def table(store: Path, query: str) -> dict[str, Any]:
    return dict(rows(store, query))


def test_a_run_is_in_the_store_with_all_it_told(make_tracking, make_info, capfd):
    params = {f"group.p{number}": number for number in range(250)}
    params |= {"data.template": "x" * 7000, "rlhf.none": None, "rlhf.pref_beta": 0.1}
    tags = {"stage": "dpo", "method": "lora"}
    info = make_info(params=params, tags=tags, git={"commit": "abc", "dirty": "true"})
    plot = info.out / "training_loss.png"
    plot.write_bytes(b"picture")
    with open_trackers(make_tracking(mlflow=True, project="my project", run_name="my run"), info) as trackers:
        trackers.log({"loss": 0.7, "rewards/accuracies": 0.5}, 10)
        trackers.log({"loss": float("nan"), "odd(name)": 1.0}, 20)
        trackers.summarize({"rouge": 31.0})
        trackers.attach(plot)

    store = info.outputs / "mlflow.db"
    run = "FROM runs JOIN experiments USING (experiment_id)"
    assert rows(store, f"SELECT experiments.name, runs.name, status {run}") == [
        ("my project", "my run", "FINISHED")
    ]
    stored = table(store, "SELECT key, value FROM params")
    assert len(stored) == 253
    assert stored["rlhf.pref_beta"] == "0.1"
    assert stored["rlhf.none"] == "null"
    assert stored["data.template"].endswith("x … (cut)")
    assert len(stored["data.template"]) == 6000
    expected = {**tags, "git.commit": "abc", "git.dirty": "true", "mlflow.source.git.commit": "abc"}
    assert expected.items() <= table(store, "SELECT key, value FROM tags").items()
    points = rows(store, "SELECT key, step, value FROM metrics WHERE NOT is_nan ORDER BY step, key")
    assert points == [
        ("loss", 10, 0.7),
        ("rewards/accuracies", 10, 0.5),
        ("odd_name_", 20, 1.0),
        ("rouge", 20, 31.0),
    ]
    assert ("loss", 20) in rows(store, "SELECT key, step FROM metrics WHERE is_nan")
    (kept,) = (info.outputs / "mlartifacts").rglob("training_loss.png")
    assert kept.read_bytes() == b"picture"
    assert capfd.readouterr() == ("", "")


def test_another_store_and_a_run_that_fails_and_goes_on(make_tracking, make_info, tmp_path):
    info = make_info()
    store = tmp_path / "elsewhere.db"
    tracking = make_tracking(mlflow=True, mlflow_tracking_uri=f"sqlite:///{store}")
    tracker = MlflowTracker(tracking)
    tracker.start(named(info, tracking))
    tracker.log({"loss": 0.7}, 10)
    tracker.finish("failed", {"loss": 0.7}, [])
    assert not (info.outputs / "mlflow.db").exists()
    assert rows(
        store, "SELECT experiments.name, runs.name, status FROM runs JOIN experiments USING (experiment_id)"
    ) == [("llmf_hydra", "run1", "FAILED")]

    tracker = MlflowTracker(tracking)
    tracker.start(info)
    assert rows(store, "SELECT status FROM runs") == [("RUNNING",)]
    tracker.log({"loss": 0.6}, 20)
    tracker.finish("done", {"loss": 0.6}, [])
    assert rows(store, "SELECT status FROM runs") == [("FINISHED",)]
    assert rows(store, "SELECT step, value FROM metrics ORDER BY step") == [(10, 0.7), (20, 0.6)]


@pytest.mark.slow
def test_four_trials_that_start_at_once_agree_on_one_parent(tmp_path):
    command = [sys.executable, "-c", TRIAL, str(tmp_path)]
    trials = [
        subprocess.Popen(
            [*command, str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    for trial in trials:
        assert trial.stdout is not None
        assert trial.stdout.readline() == "ready\n"
    for trial in trials:
        assert trial.stdin is not None
        trial.stdin.write("go\n")
        trial.stdin.flush()
    said = [trial.communicate()[1] for trial in trials]
    assert said == ["", "", "", "this one fails\n"]

    store = tmp_path / "mlflow.db"
    parents = "SELECT value FROM tags WHERE key = 'mlflow.parentRunId'"
    assert len(rows(store, parents)) == 4
    ((parent, name, status),) = rows(
        store, f"SELECT run_uuid, name, status FROM runs WHERE run_uuid IN ({parents})"
    )
    assert (name, status) == ("dpo/sweep", "FAILED")  # as one of its trials
    children = rows(store, f"SELECT name, status FROM runs WHERE run_uuid != '{parent}' ORDER BY name")
    assert children == [("0", "FINISHED"), ("1", "FINISHED"), ("2", "FINISHED"), ("3", "KILLED")]
    assert len(rows(store, "SELECT * FROM experiments WHERE name = 'p'")) == 1


@pytest.mark.slow
def test_two_sweeps_of_one_name_have_a_parent_each(make_tracking, make_info, tmp_path):
    for number, folder in enumerate(("one", "it's another", "one")):
        info = make_info(folder=str(number), sweep="study", sweep_folder=tmp_path / folder / "study")
        with open_trackers(make_tracking(mlflow=True), info) as trackers:
            trackers.log({"loss": 0.7}, 1)
    store = tmp_path / "outputs" / "mlflow.db"
    parents = rows(store, "SELECT value, COUNT(*) FROM tags WHERE key = 'mlflow.parentRunId' GROUP BY value")
    assert sorted(count for _, count in parents) == [1, 2]
    folders = {
        table(store, f"SELECT key, value FROM tags WHERE run_uuid = '{parent}'")["llmf_hydra.folder"]
        for parent, _ in parents
    }
    assert folders == {str(tmp_path / folder / "study") for folder in ("one", "it's another")}


def test_a_store_that_can_not_be_written_warns_once_and_the_run_completes(make_tracking, make_info, capfd):
    info = make_info()
    (info.outputs / "mlflow.db").mkdir()
    with open_trackers(make_tracking(mlflow=True), info) as trackers:
        for step in range(5):
            trackers.log({"loss": 0.7}, step)
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("warning: tracking=mlflow is left out from here on: IsADirectoryError")
    records = read_log(info.out / "log.jsonl")
    assert [record["step"] for record in records if "step" in record] == [0, 1, 2, 3, 4]
    assert said == "".join(f"warning: {record['warning']}\n" for record in records if "warning" in record)
    assert (info.out / "metrics.json").exists()
