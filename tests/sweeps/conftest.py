"""One real study, made once per session, for the tests that only look at it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.finished_study import FinishedStudy
from support.shared import made_once

NAME = "my <i>study"  # a folder's name is a user's text
WORDS = (
    "stage=sft",
    "model=tiny",
    "data.max_samples=40",
    "training.max_steps=3",
    "training.logging_steps=1",
    "training.eval_strategy=steps",
    "training.eval_steps=2",
    "training.save_strategy=no",
    "training.learning_rate=0.05,0.0001",
    "training.seed=1,2,3",
    "hydra.sweeper.pruner=median",
    "hydra.sweeper.pruner_startup_trials=5",
)


@pytest.fixture(scope="session")
def study(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> FinishedStudy:
    """The study; look at it, and copy the folder before you change it."""

    def sweep(cwd: Path) -> dict[str, Any]:
        command = [sys.executable, "-m", "llmf_hydra", "-m", *WORDS, f"hydra.sweep.dir='{NAME}'"]
        done = subprocess.run(
            command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == 0, done.stderr
        told = json.loads((cwd / NAME / "sweep.json").read_text(encoding="utf8"))
        return {"said": done.stdout + done.stderr, "trials": told["trials"]}

    cwd, made = made_once(tmp_path_factory, "study", sweep)
    return FinishedStudy(cwd / NAME, made["said"], made["trials"])
