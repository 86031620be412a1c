"""The real command line as the fixture `cli` gives it, and what a run leaves behind."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
Cli = Callable[..., "subprocess.CompletedProcess[str]"]


def only_run(folder: Path, stage: str) -> Path:
    """The folder of the one run of a stage below `outputs`."""
    (found,) = (folder / "outputs" / stage).iterdir()
    return found


def log_of(out: Path) -> list[dict[str, float]]:
    """The lines of a run's log without its times."""
    lines = (out / "log.jsonl").read_text(encoding="utf8").splitlines()
    return [
        {k: v for k, v in json.loads(line).items() if k not in ("time", "train_runtime")} for line in lines
    ]


def losses(out: Path) -> list[float]:
    """The training losses that a run logged."""
    return [line["loss"] for line in log_of(out) if "loss" in line]
