"""Workers of a run as a Slurm job, through submitit. The one file that imports it.

submitit pickles a job to disk, under `submitit/` of the run folder. The environment, which holds secrets, isn't in
that pickle: it waits in a file that only its owner may read, and that the job removes as it reads it.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from llmf_hydra.config.groups.launch import LaunchConfig
from llmf_hydra.errors import LlmfError
from llmf_hydra.optional import require
from llmf_hydra.runs import isolation, signals
from llmf_hydra.runs.schedulers.host import KILL, Host, Order
from llmf_hydra.runs.schedulers.remote import SUBMITIT

SAVING = 120  # maximum seconds before the time limit at which the run is asked to save and stop
LATE = 15.0  # seconds until a result shows on a file system of the network
CALL = 2.0  # seconds between two calls to Slurm; submitit makes them rarer in a long job
HANDED = ".environment-"  # begins the name of the file that holds the environment


def submit(order: Order, world: int, launch: LaunchConfig, out: Path) -> "SlurmJob":
    """Submit the job. Raises LlmfError where Slurm refuses it."""
    submitit: Any = require("submitit", extra="slurm", key="launch.use_slurm")
    handed = _hand_over(order.env, out)
    try:
        executor = _executor(submitit, launch, out)
        with _starting_alike(), _without_interrupts():
            job = executor.submit(run, replace(order, env={}), str(handed))
    except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
        handed.unlink(missing_ok=True)
        raise LlmfError(f"Slurm refused the job: {' '.join(str(error).split())}") from error
    except BaseException:
        handed.unlink(missing_ok=True)
        raise
    if launch.slurm_cluster == "slurm":
        print(f"Slurm job {job.job_id}", flush=True)
    return SlurmJob(job, handed, local=launch.slurm_cluster == "local")


def _executor(submitit: Any, launch: LaunchConfig, out: Path) -> Any:
    seconds = launch.slurm_time * 60
    python = f"{shlex.quote(sys.executable)} -P"
    kind = submitit.LocalExecutor if launch.slurm_cluster == "local" else submitit.SlurmExecutor
    executor = kind(folder=out / SUBMITIT, max_num_timeout=0, python=python)
    delay = min(SAVING, seconds // 2)
    if launch.slurm_cluster == "local":
        executor.update_parameters(
            timeout_min=launch.slurm_time, gpus_per_node=launch.slurm_gpus, signal_delay_s=delay
        )
        return executor
    asked = {
        "job_name": f"llmf-{out.name}",
        "time": launch.slurm_time,
        "nodes": 1,
        "ntasks_per_node": 1,
        "cpus_per_task": launch.slurm_cpus,
        "partition": launch.slurm_partition,
        "gpus_per_node": launch.slurm_gpus or None,
        "mem": launch.slurm_mem_gb and f"{int(launch.slurm_mem_gb * 1024)}MB",
        "signal_delay_s": delay,
    }
    executor.update_parameters(**{name: value for name, value in asked.items() if value is not None})
    return executor


def run(order: Order, handed: str) -> int:
    """In the job: run the order in the environment that was handed over; returns its exit code.

    SIGTERM is `scancel`, SIGUSR2 comes before the time limit: both ask the workers to save and stop. A second
    SIGTERM kills them.
    """
    host = Host()
    terms = 0

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal terms
        terms += number == signal.SIGTERM
        host.send(KILL if terms > 1 else signal.SIGTERM)

    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, stop)
    file = Path(handed)
    env: dict[str, str] = json.loads(file.read_text(encoding="utf8"))
    file.unlink()
    return host.run(replace(order, env=env))


def _hand_over(env: dict[str, str], out: Path) -> Path:
    """Write the environment to a file that nobody else may read (mkstemp's mode)."""
    descriptor, name = tempfile.mkstemp(prefix=HANDED, dir=out)
    with os.fdopen(descriptor, "w", encoding="utf8") as file:
        json.dump(env, file)
    return Path(name)


@contextmanager
def _starting_alike() -> Iterator[None]:
    """What the job's own Python is started with: it finds this package, and nothing in the working directory."""
    before = dict(os.environ)
    os.environ.update(isolation.with_package(before | {"PYTHONSAFEPATH": "1"}))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """What is started within doesn't hear Ctrl-C of the terminal: submitit's local jobs would kill the workers."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class SlurmJob:
    """A submitted job."""

    def __init__(self, job: Any, handed: Path, *, local: bool):
        self._job, self._handed, self._local = job, handed, local
        self._next_call, self._gone_at, self._given_up = 0.0, 0.0, False

    def code(self) -> int | None:
        """The exit code; that of SIGKILL where the job ended without one."""
        if self._job.paths.result_pickle.exists():
            outcome, result = _result(self._job)
            if outcome == "success":
                return result
            raise LlmfError(f"the job failed: {result.strip().splitlines()[-1]}")
        if not self._is_over():
            return None
        if self._given_up and self._handed.exists():
            return signals.EARLY
        self._gone_at = self._gone_at or time.monotonic()
        patience = 0.0 if self._local else LATE
        return -signal.SIGKILL if time.monotonic() - self._gone_at >= patience else None

    def _is_over(self) -> bool:
        if time.monotonic() < self._next_call and not self._local:
            return self._gone_at > 0
        self._next_call = time.monotonic() + CALL
        return self._job.done()

    def send(self, number: int) -> None:
        """Ask the workers to save and stop, however long that takes; SIGKILL, or a job that waits, is cancelled."""
        waiting = self._handed.exists()
        self._given_up = waiting
        if self._local:  # its id is that of the process that controls it
            os.kill(int(self._job.job_id), signal.SIGTERM)
        elif waiting or number == signal.SIGKILL:
            self._job.cancel(check=False)
        else:
            command = ["scancel", f"--signal={signal.Signals(number).name[3:]}", self._job.job_id]
            subprocess.run(command, check=False)

    def close(self) -> None:
        """Nothing of the environment stays on disk, whether or not the job has read it."""
        self._handed.unlink(missing_ok=True)


def _result(job: Any) -> tuple[str, Any]:
    return job._get_outcome_and_result()
