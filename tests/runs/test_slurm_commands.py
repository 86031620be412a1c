"""Slurm through its four commands, played by a script that keeps a job as a process group of this machine."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.command_line import Cli, losses, only_run

pytest.importorskip("submitit", reason="pip install 'llmf_hydra[slurm]'")

WORDS = ["stage=sft", "model=tiny", "training.logging_steps=1", "training.eval_strategy=no", "data.val_size=0",
         "training.max_steps=4000", "training.save_strategy=no", "data.max_samples=40", "launch=slurm"]  # fmt: skip
SLURM = r"""#!/bin/bash
# sbatch FILE | srun --option... command | scancel [--signal=NAME] 77 | sacct ...
here=$(dirname "$0")
case $(basename "$0") in
  sbatch)
    grep -q -- --partition=nowhere "$1" && { echo "sbatch: error: invalid partition specified: nowhere" >&2; exit 1; }
    cp "$1" "$here/script"
    export SLURM_JOB_ID=77 SLURM_NTASKS=1 SLURM_PROCID=0
    setsid bash -c 'trap : TERM USR2; . "$0"; wait' "$1" > "$here/job.log" 2>&1 &
    echo $! > "$here/group"; echo "Submitted batch job 77";;
  srun)
    while [[ $1 == --* ]]; do [[ $1 == --output || $1 == --error ]] && shift; shift; done
    exec "$@";;
  scancel)
    echo "$@" >> "$here/cancelled"
    kill "-${1#--signal=}" -- "-$(cat "$here/group")";;
  sacct)
    state=RUNNING; [[ -e /proc/$(cat "$here/group") ]] || state=NODE_FAIL
    printf 'JobID|State|NodeList\n77|%s|here\n' $state;;
esac
"""


@pytest.fixture
def slurm(environment: dict[str, str], tmp_path: Path) -> tuple[dict[str, str], Path]:
    """An environment with Slurm's commands on its PATH, and the folder of what they were told."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name in ("sbatch", "srun", "scancel", "sacct"):
        (folder / name).write_text(SLURM)
        (folder / name).chmod(0o755)
    return {**environment, "PATH": f"{folder}:{environment['PATH']}"}, folder


def start(env: dict[str, str], folder: Path, *words: str) -> tuple["subprocess.Popen[str]", Path]:
    """A launcher and its run's folder, three steps into the training."""
    launcher = subprocess.Popen([sys.executable, "-m", "llmf_hydra", *WORDS, *words], cwd=folder, env=env, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    for _ in range(1200):
        assert launcher.poll() is None, launcher.communicate()
        for log in folder.glob("outputs/sft/*/log.jsonl"):
            if log.read_text(encoding="utf8").count("\n") >= 3:
                return launcher, log.parent
        time.sleep(0.05)
    raise TimeoutError


def status(out: Path) -> str:
    return json.loads((out / "manifest.json").read_text())["status"]


def test_a_job_is_submitted_as_asked_and_stopped_without_a_deadline(
    slurm: tuple[dict[str, str], Path], tmp_path: Path
) -> None:
    env, folder = slurm
    asked = ["launch.slurm_partition=gpu", "launch.slurm_time=90", "launch.slurm_gpus=2", "launch.slurm_cpus=4",
             "launch.slurm_mem_gb=1.5"]  # fmt: skip
    launcher, out = start(env, tmp_path, *asked)
    script = (folder / "script").read_text()
    for flag in ("partition=gpu", "time=90", "gpus-per-node=2", "cpus-per-task=4", "mem=1536MB", "nodes=1",
                 "signal=USR2@120", f"job-name=llmf-{out.name}"):  # fmt: skip
        assert f"#SBATCH --{flag}\n" in script
    launcher.send_signal(signal.SIGTERM)
    shown, said = launcher.communicate(timeout=60)
    assert launcher.returncode == 130, said
    assert "Slurm job 77" in shown
    assert (folder / "cancelled").read_text() == "--signal=TERM 77\n"  # a plain scancel kills after 30 s
    assert (
        status(out) == "killed" and (out / f"checkpoint-{len(losses(out))}" / "trainer_state.json").exists()
    )


@pytest.mark.slow  # waits 15 s for a result that a file system of the network might still show
def test_the_time_limit_saves_and_a_failed_node_is_told_as_killed(
    slurm: tuple[dict[str, str], Path], tmp_path: Path
) -> None:
    env, folder = slurm
    launcher, out = start(env, tmp_path)
    os.killpg(int((folder / "group").read_text()), signal.SIGUSR2)  # what Slurm sends before the time limit
    _, said = launcher.communicate(timeout=60)
    assert launcher.returncode == 130, said
    assert (
        status(out) == "killed" and (out / f"checkpoint-{len(losses(out))}" / "trainer_state.json").exists()
    )
    other = tmp_path / "other"
    other.mkdir()
    launcher, out = start(env, other)
    os.killpg(int((folder / "group").read_text()), signal.SIGKILL)
    _, said = launcher.communicate(timeout=60)
    assert launcher.returncode == 1, said
    assert status(out) == "killed"


def test_what_sbatch_refuses_is_told_in_its_words(
    slurm: tuple[dict[str, str], Path], cli: Cli, tmp_path: Path
) -> None:
    env, _ = slurm
    done = cli(*WORDS, "launch.slurm_partition=nowhere", env=env)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "failed: Slurm refused the job: sbatch: error: invalid partition specified: nowhere" in done.stderr
    out = only_run(tmp_path, "sft")
    assert status(out) == "failed" and list(out.glob(".environment-*")) == []
