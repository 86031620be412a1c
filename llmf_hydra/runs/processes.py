"""The workers as processes: their environment, their signals, their end."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import IO

from llmf_hydra.config.record import hidden, is_handed
from llmf_hydra.config.schema import Config
from llmf_hydra.errors import DONE, INTERRUPTED
from llmf_hydra.runs import folder as runs
from llmf_hydra.runs import ranks
from llmf_hydra.runs.manifest import cores

PATIENCE = 10.0  # seconds until a worker that doesn't end by itself is killed
OUTPUT = "worker.log"  # what a trial of a sweep prints


def environments(cfg: Config) -> Iterator[dict[str, str]]:
    """The environment of each worker: several train together where the config asks for it, sharing the cores."""
    world = cfg.launch.nproc_per_node if cfg.job.name == "train" else 1
    port = _free_port() if world > 1 else 0
    for rank in range(world):
        env = environment(cfg)
        ranks.assign(env, rank, world, port)
        if world > 1:
            env.setdefault("OMP_NUM_THREADS", str(max(1, cores() // world)))
        yield env


def _free_port() -> int:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return door.getsockname()[1]


def environment(cfg: Config) -> dict[str, str]:
    """The environment of all workers: the launcher's, and what the config says of threads, devices and secrets.

    PYTHONHASHSEED is fixed, since the order of a set of strings reaches files on disk (adapter_config.json).
    """
    launch = cfg.launch
    env = {name: value for name, value in os.environ.items() if not is_handed(name)}
    env.setdefault("PYTHONHASHSEED", "0")
    env.setdefault("TOKENIZERS_PARALLELISM", "true")
    env["OMP_WAIT_POLICY"] = launch.omp_wait_policy
    if launch.omp_num_threads is not None:
        env["OMP_NUM_THREADS"] = str(launch.omp_num_threads)
    if launch.cuda_visible_devices is not None:
        env["CUDA_VISIBLE_DEVICES"] = launch.cuda_visible_devices
    return env | hidden(cfg)


def run_worker(out: Path, cfg: Config, *, quiet: bool, resume: bool = False) -> int:
    """Run the workers of a folder to their end; returns the exit code and leaves the right status behind.

    SIGINT and SIGTERM are passed on once, so that the trainer saves its state; a second one kills.
    `quiet` sends what the workers print to `worker.log` in the folder.
    """
    command = [sys.executable, "-m", "llmf_hydra.worker", str(out), *(["--resume"] if resume else [])]
    with _Output(out, quiet) as sink:
        workers = [
            subprocess.Popen(
                command, env=env, stdout=sink, stderr=sink and subprocess.STDOUT, start_new_session=True
            )
            for env in environments(cfg)
        ]
        with _Forwarding(workers):
            code = _wait(workers)
    settle(out, code, alone=len(workers) == 1)
    return INTERRUPTED if code == -signal.SIGTERM else code if code >= 0 else 1


def _wait(workers: Sequence["subprocess.Popen[bytes]"]) -> int:
    """The exit code of the run: that of the first worker that ended badly, after which the others are stopped."""
    first = DONE
    stopped_at: float | None = None
    while any(worker.poll() is None for worker in workers):
        if first == DONE:
            first = next((worker.returncode for worker in workers if worker.returncode), DONE)
        elif first != INTERRUPTED and stopped_at is None:  # of an interrupted run each saves what is its own
            stopped_at = time.monotonic()
            _send(workers, signal.SIGTERM)
        elif stopped_at is not None and time.monotonic() - stopped_at > PATIENCE:
            _send(workers, signal.SIGKILL)  # it waits for an answer of the one that is gone
        _wait_a_little(workers)
    return first or next((worker.returncode for worker in workers if worker.returncode), DONE)


def _wait_a_little(workers: Sequence["subprocess.Popen[bytes]"]) -> None:
    alive = [worker for worker in workers if worker.poll() is None]
    try:
        for worker in alive[:1]:
            worker.wait(None if len(workers) == 1 else 0.1)
    except subprocess.TimeoutExpired:
        pass


def _send(workers: Sequence["subprocess.Popen[bytes]"], number: int) -> None:
    for worker in workers:
        if worker.poll() is None:
            worker.send_signal(number)


def settle(out: Path, code: int, *, alone: bool = True) -> None:
    """Set the status of a run whose worker is gone and could not set it itself.

    Of several workers it is not the first one alone that decides how the run ended.
    """
    if runs.read_manifest(out)["status"] not in ("created", "running") and (alone or code == DONE):
        return
    status = "killed" if code < 0 or code == INTERRUPTED else "done" if code == DONE else "failed"
    runs.update_manifest(out, status=status, ended=runs.now(), exit_code=code)


def remove_refused(out: Path, *, keep_folder: bool) -> None:
    """Take away what a run left that its worker refused before anything was trained; a folder of the user's stays."""
    held = list(out.iterdir())
    if {entry.name for entry in held} <= {runs.CONFIG, runs.MANIFEST, OUTPUT, "git.diff"}:
        for entry in held:
            entry.unlink()
        if not keep_folder:
            out.rmdir()


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
    """While entered, SIGINT and SIGTERM go to the workers: first as SIGTERM, then as SIGKILL."""

    def __init__(self, workers: Sequence["subprocess.Popen[bytes]"]):
        self._workers = workers
        self._asked = False

    def __enter__(self) -> None:
        self._before = {
            number: signal.signal(number, self._pass_on) for number in (signal.SIGINT, signal.SIGTERM)
        }

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        _send(self._workers, signal.SIGKILL if self._asked else signal.SIGTERM)
        self._asked = True
