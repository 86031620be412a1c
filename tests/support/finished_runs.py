"""One finished run of each stage, made once a session through the real command line, for tests that only read it."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from support.command_line import only_run
from support.shared import made_once

SHORT = (
    "model=tiny",
    "training.max_steps=12",
    "training.logging_steps=2",
    "training.eval_steps=6",
    "training.save_steps=6",
    "training.learning_rate=0.01",
)


@dataclass(frozen=True)
class FinishedRun:
    """What the command line printed, and the folder it left."""

    done: "subprocess.CompletedProcess[str]"
    out: Path
    cwd: Path


Finished = Callable[..., FinishedRun]


@pytest.fixture(scope="session")
def finished(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """`finished("sft", "method=full")`: twelve steps of a stage on the tiny model, trained at the first call only."""

    def run(stage: str, *words: str) -> FinishedRun:
        command = [sys.executable, "-m", "llmf_hydra", f"stage={stage}", *SHORT, *words]

        def train(cwd: Path) -> dict[str, Any]:
            done = subprocess.run(
                command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=240, check=False
            )
            assert done.returncode == 0, done.stderr
            folder = str(
                only_run(cwd, stage)
            )  # now: a test may use this working directory for a run of its own
            return {"code": done.returncode, "out": done.stdout, "err": done.stderr, "folder": folder}

        name = f"finished-{stage}-{sha256(' '.join(words).encode()).hexdigest()[:8]}"
        cwd, said = made_once(tmp_path_factory, name, train)
        done = subprocess.CompletedProcess(command, said["code"], said["out"], said["err"])
        return FinishedRun(done, Path(said["folder"]), cwd)

    return run
