"""Every command in README.md and docs/ runs: against the tiny model, in one folder, with few steps."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.command_line import ROOT

NOT_RUN = {  # beginning of a command -> why no test runs it
    "git clone": "needs the repository's address",
    "pip install": "make setup has installed it",
    "llmf-hydra job=webui": "serves until it is stopped; tests/webui drive it",
    "GRADIO_PASSWORD=": "serves until it is stopped; tests/webui drive it",
    "make ": "minutes; .ci/run makes the same targets",
    "python -m benchmarks": "minutes; see docs/benchmarks.md",
    "llmf resume outputs/sft/...": "the reader puts a folder in; tests/runs resume real ones",
    "llmf reproduce outputs/sft/...": "the reader puts a folder in; tests/cli reproduce real ones",
    "llmf diff outputs/... outputs/...": "the reader puts two folders in; docs/reproduction.md has real ones",
    "llmf-hydra job=evaluate": "the reader's copy of a benchmark; tests/jobs evaluate small ones",
    "llmf-hydra job=predict from_run=outputs/dpo/...": "the reader's run and data; docs/using.md has real ones",
    "llmf-hydra job=export from_run=outputs/dpo/...": "the reader puts a folder in; docs/using.md exports a real one",
    "llmf-hydra job=chat from_run=outputs/dpo/...": "the reader puts a folder in; tests/serve talk to real ones",
    "llmf-hydra job=api from_run=outputs/dpo/...": "the reader puts a folder in; tests/serve start servers",
    "llmf import llamafactory.yaml": "the reader's own file; tests/cli/llamafactory import real ones",
    "llmf-hydra stage=sft data.dataset=my.jsonl": "the reader's own data and model",
    "llmf-hydra stage=sft launch=ray launch.ray_address=10.0.0.5:6379": "the reader's Ray cluster",
    "llmf-hydra stage=sft launch=slurm launch.slurm_partition=gpu": "the reader's Slurm cluster",
}
SHORT = ["model=tiny", "training.max_steps=2", "data.max_samples=40", "data.val_size=4", "tracking=files"]
TRAINS = re.compile(r"(^| )(stage=|--config-name )")


def commands() -> list[str]:
    """The lines of all shell blocks without their comments, each once."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    blocks = [
        block for page in pages for block in re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL)
    ]
    lines = [re.sub(r"\s+# .*", "", line).strip() for block in blocks for line in block.splitlines()]
    return list(dict.fromkeys(line for line in lines if line))


def capped(line: str) -> str:
    """The command with the settings that keep it short, where it trains."""
    return f"{line} {' '.join(SHORT)}" if TRAINS.search(line) and "job=" not in line else line


def made_by(line: str) -> Path | None:
    """The folder that a command names for its run."""
    found = re.search(r"hydra\.run\.dir=(\S+)", line)
    return Path(found[1]) if found else None


@pytest.mark.slow  # some thirty trainings
@pytest.mark.timeout(1800)
def test_every_command_of_the_documentation_runs(environment: dict[str, str], tmp_path: Path) -> None:
    shutil.copytree(ROOT / "data", tmp_path / "data", ignore=shutil.ignore_patterns("*.py", "demo_banks"))
    env = {**environment, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"}
    lines = [line for line in commands() if not line.startswith(tuple(NOT_RUN))]
    lines.sort(key=lambda line: made_by(line) is None or "final" in line)  # what others read comes first
    failed = []
    for line in lines:
        out = made_by(line)
        if out is not None and (tmp_path / out).exists():
            continue  # two pages make the same model
        done = subprocess.run(["bash", "-c", capped(line)], cwd=tmp_path, env=env, capture_output=True, text=True,
                              check=False)  # fmt: skip
        if done.returncode != 0:
            failed.append(f"{line}\n{done.stderr[-600:]}")
    assert not failed, "\n\n".join(failed)


def test_what_is_not_run_stands_in_the_documentation() -> None:
    assert [start for start in NOT_RUN if not any(line.startswith(start) for line in commands())] == []
