"""The real command line as the fixture `cli` gives it, and what a run leaves behind."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from llmf_hydra.config.groups.launch import LaunchConfig
from llmf_hydra.config.schema import Config
from llmf_hydra.runs import imports, processes

ROOT = Path(__file__).resolve().parents[2]
CLOCK = re.compile("^time$|runtime|per_second")  # keys of the log
Cli = Callable[..., "subprocess.CompletedProcess[str]"]


def worker_environment(env: dict[str, str]) -> dict[str, str]:
    """What the workers of a launcher with this environment get, for runs whose weights aren't quantized."""
    launch = LaunchConfig(
        verbosity="INFO",
        omp_wait_policy="PASSIVE",
        omp_num_threads=None,
        cuda_visible_devices=None,
        ascend_rt_visible_devices=None,
        optim_torch=False,
    )
    return processes.launch_environment(launch, env) | imports.environment(Config())


def only_run(folder: Path, stage: str) -> Path:
    """The folder of the one run of a stage below `outputs`."""
    (found,) = (folder / "outputs" / stage).iterdir()
    return found


def log_of(out: Path) -> list[dict[str, float]]:
    """The lines of a run's log without what the clock says."""
    lines = (out / "log.jsonl").read_text(encoding="utf8").splitlines()
    return [
        {key: value for key, value in json.loads(line).items() if not CLOCK.search(key)} for line in lines
    ]


def losses(out: Path) -> list[float]:
    """The training losses that a run logged."""
    return [line["loss"] for line in log_of(out) if "loss" in line]
