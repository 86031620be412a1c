"""The worker as a process: its environment, its signals, its end."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import IO

from llmf_hydra import runs
from llmf_hydra.config.record import secret_variable
from llmf_hydra.config.schema import Config, entries, value_at
from llmf_hydra.errors import DONE, INTERRUPTED

OUTPUT = "worker.log"  # what a trial of a sweep prints


def environment(cfg: Config) -> dict[str, str]:
    """The environment of a worker: the launcher's, and what the config says of threads, devices and secrets.

    PYTHONHASHSEED is fixed, since the order of a set of strings reaches files on disk (adapter_config.json).
    """
    launch = cfg.launch
    env = dict(os.environ)
    env.setdefault("PYTHONHASHSEED", "0")
    env.setdefault("TOKENIZERS_PARALLELISM", "true")
    env["OMP_WAIT_POLICY"] = launch.omp_wait_policy
    if launch.omp_num_threads is not None:
        env["OMP_NUM_THREADS"] = str(launch.omp_num_threads)
    if launch.cuda_visible_devices is not None:
        env["CUDA_VISIBLE_DEVICES"] = launch.cuda_visible_devices
    for key, entry in entries().items():
        secret = value_at(cfg, key)
        if entry.param.secret and secret is not None:
            env[secret_variable(key)] = secret
    return env


def run_worker(out: Path, cfg: Config, *, quiet: bool, resume: bool = False) -> int:
    """Run a worker on the folder to its end; returns its exit code and leaves the right status behind.

    SIGINT and SIGTERM are passed on once, so that the trainer saves its state; a second one kills.
    `quiet` sends what the worker prints to `worker.log` in the folder.
    """
    command = [sys.executable, "-m", "llmf_hydra.worker", str(out), *(["--resume"] if resume else [])]
    with _Output(out, quiet) as sink:
        worker = subprocess.Popen(
            command,
            env=environment(cfg),
            stdout=sink,
            stderr=sink and subprocess.STDOUT,
            start_new_session=True,
        )
        with _Forwarding(worker):
            code = worker.wait()
    settle(out, code)
    return INTERRUPTED if code == -signal.SIGTERM else code if code >= 0 else 1


def settle(out: Path, code: int) -> None:
    """Set the status of a run whose worker is gone and could not set it itself."""
    manifest = runs.read_manifest(out)
    if manifest["status"] not in ("created", "running"):
        return
    status = "killed" if code < 0 else "done" if code == DONE else "failed"
    runs.update_manifest(out, status=status, ended=runs.now(), exit_code=code)


def remove_refused(out: Path) -> None:
    """Take away the folder of a run that its worker refused before anything was trained."""
    held = {entry.name for entry in out.iterdir()}
    if held <= {runs.CONFIG, runs.MANIFEST, OUTPUT, "git.diff"}:
        shutil.rmtree(out)


class _Output:
    """The file a quiet worker prints to, or None for the terminal."""

    def __init__(self, out: Path, quiet: bool):
        self._file: IO[bytes] | None = (out / OUTPUT).open("ab") if quiet else None

    def __enter__(self) -> IO[bytes] | None:
        return self._file

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()


class _Forwarding:
    """While entered, SIGINT and SIGTERM go to the worker: first as SIGTERM, then as SIGKILL."""

    def __init__(self, worker: "subprocess.Popen[bytes]"):
        self._worker = worker
        self._asked = False

    def __enter__(self) -> None:
        self._before = {
            number: signal.signal(number, self._pass_on) for number in (signal.SIGINT, signal.SIGTERM)
        }

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        if self._worker.poll() is None:
            self._worker.send_signal(signal.SIGKILL if self._asked else signal.SIGTERM)
        self._asked = True
