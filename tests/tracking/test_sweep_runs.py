"""A sweep as its trackers hold it: named trials in one group, how each ended, and how the sweep did."""

import json
import re
import sqlite3
from pathlib import Path

from support.command_line import Cli
from support.wandb_files import records

from llmf_hydra.sweeps.plan import unique_name
from llmf_hydra.tracking.names import LONGEST, trial_name

WORDS = ["stage=dpo", "model=tiny", "data.max_samples=16", "data.val_size=4", "training.logging_steps=1",
         "training.max_steps=3", "training.save_strategy=no", "training.eval_steps=1"]  # fmt: skip


def test_trials_are_named_by_what_varies_and_the_sweep_says_how_it_ended(cli: Cli, tmp_path: Path) -> None:
    pruner = ["hydra.sweeper.pruner=median", "hydra.sweeper.pruner_startup_trials=1"]
    varied = ["training.learning_rate=0.05,0.0000001", "rlhf.pref_beta=0.1"]  # the second learns nothing
    done = cli("-m", *WORDS, *varied, *pruner, "tracking=[wandb,mlflow]", "hydra.sweep.dir=study")
    assert done.returncode == 0 and "warning" not in done.stderr, done.stderr

    names = ["learning_rate=0.05", "learning_rate=1e-07"]
    for number, name in enumerate(names):
        out = tmp_path / "study" / str(number)
        run = next(record.run for record in records(out) if record.HasField("run"))
        assert (run.display_name, run.run_group, run.job_type) == (
            name,
            unique_name(tmp_path / "study"),
            "trial",
        )

    tags = "SELECT value FROM tags WHERE tags.run_uuid = runs.run_uuid AND key ="
    query = f"SELECT name, status, ({tags} 'llmf_hydra.status'), ({tags} 'llmf_hydra.reason') FROM runs"
    with sqlite3.connect(tmp_path / "outputs" / "mlflow.db") as store:
        assert sorted(store.execute(query)) == [
            (names[0], "FINISHED", "done", None),
            (names[1], "FINISHED", "pruned", None),
            ("study", "FINISHED", "done", "2 of 2 trials ended well"),
        ]


def test_the_group_of_a_study_is_its_own_wherever_it_is_moved(tmp_path: Path) -> None:
    for number, name in enumerate(("here/rates", "there/rates")):
        (tmp_path / name).mkdir(parents=True)
        told = {"name": "rates", "host": "me", "created": f"2026-11-30T12:00:00.00{number}+00:00"}
        told |= {
            "storage": "",
            "cwd": "",
            "config_name": "config",
            "overrides": [],
            "space": {},
            "objectives": {},
        }
        (tmp_path / name / "study.json").write_text(json.dumps(told), encoding="utf8")
    here, there = unique_name(tmp_path / "here" / "rates"), unique_name(tmp_path / "there" / "rates")
    assert here != there and re.fullmatch("rates-[0-9a-f]{8}", here)
    (tmp_path / "here" / "rates").rename(tmp_path / "moved")
    assert unique_name(tmp_path / "moved") == here
    other_sweepers = unique_name(tmp_path / "one" / "s"), unique_name(tmp_path / "two" / "s")
    assert len(set(other_sweepers)) == 2 and all(name.startswith("s-") for name in other_sweepers)


def test_the_name_of_a_trial() -> None:
    assert trial_name([]) == ""
    assert trial_name(["method.lora_rank=8", "rlhf.pref_beta=0.1"]) == "lora_rank=8 pref_beta=0.1"
    assert (
        trial_name(["stage.name=a", "model.name=b", "+data.x=[c=d]"]) == "stage.name=a model.name=b x=[c=d]"
    )
    long = trial_name(["data.dataset=" + "x" * 200])
    assert len(long) == LONGEST and long.endswith("…")
