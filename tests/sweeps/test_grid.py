"""Sweeps from the real command line: every trial a process and a folder, one failure stops no other."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.command_line import Cli

from llmf_hydra.paths import conf_dir
from llmf_hydra.sweeps.trials import Interrupts

SHORT = [
    "stage=dpo",
    "model=tiny",
    "training.max_steps=3",
    "training.learning_rate=0.05",
    "training.eval_strategy=no",
    "data.val_size=0",
    "training.save_strategy=no",
    "data.max_samples=16",
]
GRID = ["method.lora_rank=4,8", "rlhf.pref_beta=0.05,0.1"]


def test_a_grid_with_one_failing_trial(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "study" / "2").mkdir(parents=True)
    (tmp_path / "study" / "2" / "notes.txt").write_text("the user's own")
    done = cli("-m", *SHORT, *GRID, "hydra.sweep.dir=study")
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr

    trials = json.loads((tmp_path / "study" / "sweep.json").read_text(encoding="utf8"))["trials"]
    assert [trial["status"] for trial in trials] == ["done", "done", "done", "refused"]
    objectives = [trial["objective"] for trial in trials[:3]]
    assert objectives == sorted(objectives) and len(set(objectives)) == 3
    assert trials[3]["number"] == 2 and trials[3]["objective"] is None
    rows = done.stdout.split("trial  status")[1].splitlines()[1:]
    assert [row.split()[1] for row in rows[:4]] == ["done", "done", "done", "refused"]
    best = json.loads((tmp_path / "study" / str(trials[0]["number"]) / "manifest.json").read_text())
    assert (
        rows[4]
        == f"best: trial {trials[0]['number']}, objective {best['objective']['value']}; repeat it with"
    )
    assert rows[5].split()[0] == "llmf-hydra" and trials[0]["overrides"][-1] in rows[5]
    combinations = {
        tuple(
            word
            for word in trial["overrides"]
            if word.split("=")[0] in ("method.lora_rank", "rlhf.pref_beta")
        )
        for trial in trials
    }
    assert len(combinations) == 4

    pids = {json.loads((tmp_path / "study" / str(n) / "manifest.json").read_text())["pid"] for n in (0, 1, 3)}
    assert len(pids) == 3
    assert "step 3/3" in (tmp_path / "study" / "0" / "worker.log").read_text(encoding="utf8")
    assert [file.name for file in (tmp_path / "study" / "2").iterdir()] == ["notes.txt"]
    assert "holds files already (notes.txt)" in done.stderr


def mlflow_runs(folder: Path) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder / 'outputs' / 'mlflow.db'}")
    return list(client.search_runs([experiment.experiment_id for experiment in client.search_experiments()]))


@pytest.mark.slow
def test_a_failed_trial_is_told_with_its_reason_and_its_log(cli: Cli, tmp_path: Path) -> None:
    done = cli("-m", *SHORT, "training.learning_rate=1e25,0.05", "tracking=mlflow", "hydra.sweep.dir=study")
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    trials = json.loads((tmp_path / "study" / "sweep.json").read_text(encoding="utf8"))["trials"]
    assert [(trial["number"], trial["status"]) for trial in trials] == [(1, "done"), (0, "failed")]
    log = tmp_path / "study" / "0" / "worker.log"
    assert "lower training.learning_rate" in trials[1]["reason"] and str(log) in trials[1]["reason"]
    assert "lower training.learning_rate" in log.read_text(encoding="utf8")
    assert "failed: " in done.stdout and not (tmp_path / "study" / "0" / "final").exists()
    runs = mlflow_runs(tmp_path)
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    assert {run.info.status for run in children} == {"FAILED", "FINISHED"} and len(runs) == 3
    (parent,) = (run for run in runs if run not in children)
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert (parent.info.status, parent.data.tags["llmf_hydra.status"]) == ("FAILED", "failed")
    assert parent.data.tags["llmf_hydra.reason"].startswith("1 of 2 trials ended well; trial 0 failed: ")


def test_a_refused_combination_is_counted_and_the_others_run(cli: Cli, tmp_path: Path) -> None:
    done = cli(
        "-m", *SHORT, "training.warmup_steps=0,1", "training.warmup_ratio=0,0.5", "hydra.sweep.dir=study"
    )
    assert done.returncode == 1
    trials = json.loads((tmp_path / "study" / "sweep.json").read_text(encoding="utf8"))["trials"]
    assert [trial["status"] for trial in trials] == ["done", "done", "done", "refused"]
    assert "training.warmup_steps=1: contradicts training.warmup_ratio=0.5" in done.stderr
    assert sorted(folder.name for folder in (tmp_path / "study").iterdir() if folder.is_dir()) == [
        "0",
        "1",
        "2",
    ]


@pytest.mark.slow
def test_a_glob_tries_every_file_of_a_group(cli: Cli, tmp_path: Path) -> None:
    done = cli("-m", "stage=dpo", "model=tiny", "job=check", "rlhf=glob(*)", "hydra.sweep.dir=study")
    trials = json.loads((tmp_path / "study" / "sweep.json").read_text(encoding="utf8"))["trials"]
    tried = [word for trial in trials for word in trial["overrides"] if word.startswith("rlhf=")]
    assert sorted(tried) == sorted(f"rlhf={file.stem}" for file in (conf_dir() / "rlhf").glob("*.yaml"))
    assert done.returncode == 0 and {trial["status"] for trial in trials} == {"done"}, done.stderr


LAUNCHER = """
from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.config_store import ConfigStore
from hydra.plugins.launcher import Launcher

class AtOnceLauncher(Launcher):
    def setup(self, **given):
        self.basic = BasicLauncher()
        self.basic.setup(**given)

    def launch(self, job_overrides, initial_job_idx):
        print("launched at once:", len(job_overrides))
        return self.basic.launch(job_overrides, initial_job_idx)

node = {"_target_": "hydra_plugins.at_once.AtOnceLauncher"}
ConfigStore.instance().store(group="hydra/launcher", name="at_once", node=node, provider="test")
"""


@pytest.mark.slow
def test_a_launcher_plugin_gets_all_trials_and_each_shows_its_reason(cli: Cli, tmp_path: Path) -> None:
    """One trial fails in its worker, one is done, one is refused before it has a worker."""
    plugins = tmp_path / "plugins" / "hydra_plugins"
    plugins.mkdir(parents=True)
    (plugins / "at_once.py").write_text(LAUNCHER)
    done = cli("-m", *SHORT, "training.lr_scheduler_type=polynomial", "training.learning_rate=1e25,0.05,1e-8",
               "hydra/launcher=at_once", "hydra.sweep.dir=study", env={"PYTHONPATH": str(plugins.parent)})  # fmt: skip
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    trials = json.loads((tmp_path / "study" / "sweep.json").read_text(encoding="utf8"))["trials"]
    assert "launched at once: 3" in done.stdout
    shown = {trial["number"]: (trial["status"], trial["reason"]) for trial in trials}
    assert {number: status for number, (status, _) in shown.items()} == {0: "failed", 1: "done", 2: "refused"}
    assert "lower training.learning_rate" in shown[0][1]
    assert str(tmp_path / "study" / "0" / "worker.log") in shown[0][1]
    assert "is not above 1e-7, where polynomial ends" in shown[2][1]
    assert all(reason in done.stdout for status, reason in shown.values() if status != "done")


def test_a_study_is_a_file_of_its_own(cli: Cli, tmp_path: Path) -> None:
    done = cli("--config-name", "lora_rank", *SHORT, "tracking=files", "job=check")
    assert done.returncode == 0, done.stderr
    (sweep,) = (tmp_path / "outputs" / "sweeps").iterdir()
    trials = json.loads((sweep / "sweep.json").read_text(encoding="utf8"))["trials"]
    assert len(trials) == 3 and {trial["status"] for trial in trials} == {"done"}


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)], ids=["Ctrl-C", "SIGTERM"]
)
def test_a_stopped_sweep_has_its_trial_save_and_still_reports(
    number: signal.Signals, environment: dict[str, str], tmp_path: Path
) -> None:
    words = [*SHORT, "training.max_steps=100000", "training.seed=1,2", "hydra.sweep.dir=study"]
    sweep = subprocess.Popen(
        [sys.executable, "-m", "llmf_hydra", "-m", *words],
        cwd=tmp_path,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    log = tmp_path / "study" / "0" / "log.jsonl"
    for _ in range(1200):
        if log.exists() and log.stat().st_size:
            break
        time.sleep(0.05)
    sweep.send_signal(number)
    try:
        said, _ = sweep.communicate(timeout=60)
    finally:
        sweep.kill()  # its trials end with it
    assert sweep.returncode == 130
    trials = json.loads((tmp_path / "study" / "sweep.json").read_text(encoding="utf8"))["trials"]
    assert [trial["status"] for trial in trials] == ["killed", "waiting"] and "killed" in said


class _StoppedAtItsEnd:
    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_is_not_lost_where_python_drops_exceptions() -> None:
    with Interrupts() as interrupts:
        _StoppedAtItsEnd()
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()


def test_a_second_sweep_leaves_the_account_of_the_first(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "sweep.json").write_text("the first")
    done = cli("-m", *SHORT, *GRID, "hydra.sweep.dir=study")
    assert (
        done.returncode == 2 and "hydra.sweep.dir=" in done.stderr and "holds a sweep already" in done.stderr
    )
    assert [file.read_text() for file in (tmp_path / "study").iterdir()] == ["the first"]
