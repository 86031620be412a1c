"""Workers that a scheduler runs, Ray or Slurm, in the manner of `subprocess.Popen`.

A thread talks to the scheduler, so that a signal that comes to the launcher never meets half a call to it. What the
workers print goes to `worker.log` of the run folder, which the node sees too, and is repeated on the terminal.
"""

import queue
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Protocol

from llmf_hydra.config.groups.launch import LaunchConfig
from llmf_hydra.config.secrets import masked_text
from llmf_hydra.errors import FAILED, LlmfError
from llmf_hydra.runs import folder as runs
from llmf_hydra.runs import isolation
from llmf_hydra.runs.schedulers.host import Order

LOG = "worker.log"  # in the run folder: what remote workers print, and those of a sweep's trials
SUBMITIT = "submitit"  # in the run folder: scripts, pickles and logs of a Slurm job
NODE = "llmf_hydra.runs.schedulers.node"
INTERVAL = 0.1  # seconds between two looks at a worker
THREADS = "OMP_NUM_THREADS"


class Job(Protocol):
    """A worker as its scheduler knows it."""

    def code(self) -> int | None:
        """The exit code, -N where signal N ended the worker or its node was lost, or None while it waits or runs."""
        ...

    def send(self, number: int) -> None:
        """Have the worker save and stop at SIGTERM, and end at SIGKILL; one that waits for a node never starts."""
        ...

    def close(self) -> None:
        """Give back what the job holds."""
        ...


def wanted(launch: LaunchConfig) -> bool:
    """Whether a scheduler runs the workers."""
    return launch.use_ray or launch.use_slurm


def start(
    out: Path, words: list[str], env: dict[str, str], world: int, launch: LaunchConfig, quiet: bool
) -> "Remote":
    """Have the scheduler of the config start `world` workers of a run folder, all on one node.

    `quiet` leaves what they print in the run's log; else the terminal shows it too.
    """
    log = out / LOG
    cpus = launch.ray_num_cpus if launch.use_ray else launch.slurm_cpus / world
    gpus = launch.ray_num_gpus if launch.use_ray else launch.slurm_gpus
    threads = {THREADS: str(max(1, int(cpus)))}  # a node has more cores than are reserved
    command = isolation.command(NODE, str(world), *words)
    order = Order(command, threads | env, str(Path.cwd()), str(log), gpus > 0)
    scheduler = import_module(f"llmf_hydra.runs.schedulers.{'ray' if launch.use_ray else 'slurm'}_worker")
    return Remote(lambda: scheduler.submit(order, world, launch, out), out, None if quiet else log)


class Remote:
    """A worker on a node: poll, wait, send_signal, returncode."""

    def __init__(self, submit: Callable[[], Job], out: Path, shown: Path | None):
        self.returncode: int | None = None
        self._out = out
        self._signals: queue.SimpleQueue[int] = queue.SimpleQueue()  # reentrant: a handler may put
        self._over = threading.Event()
        self._connected = threading.Event()
        self._shown = _Shown(shown)
        threading.Thread(target=self._follow, args=(submit,), daemon=True).start()

    def poll(self) -> int | None:
        """The exit code, -N where signal N ended the worker, or None while it runs."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the worker's end; returns its exit code. Raises subprocess.TimeoutExpired."""
        end = None if timeout is None else time.monotonic() + timeout
        while not self._over.wait(INTERVAL) and (end is None or time.monotonic() < end):
            self._listen_again()
        if self.returncode is None:
            raise subprocess.TimeoutExpired("remote worker", timeout or 0.0)
        return self.returncode

    def _listen_again(self) -> None:
        """Once connected, Ray has put a handler of its own before Python's, which prints its stack and may abort."""
        if self._connected.is_set() and threading.current_thread() is threading.main_thread():
            self._connected.clear()
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.getsignal(number))

    def send_signal(self, number: int) -> None:
        """Have the scheduler pass a signal on."""
        self._signals.put(number)

    def _follow(self, submit: Callable[[], Job]) -> None:
        code = FAILED
        try:
            job = submit()
            self._connected.set()
            code = self._until_its_end(job)
        except LlmfError as error:
            self._fail(str(error))
        except Exception as error:
            self._fail(f"{type(error).__name__}: {error}")
            text = masked_text(traceback.format_exc())
            (self._out / "error.txt").write_text(text, encoding="utf8")
        finally:
            self.returncode = code
            self._over.set()

    def _until_its_end(self, job: Job) -> int:
        try:
            while (code := job.code()) is None:
                self._shown.go_on()
                with suppress(queue.Empty):
                    job.send(self._signals.get(timeout=INTERVAL))
            return code
        finally:
            job.close()
            self._shown.go_on()

    def _fail(self, reason: str) -> None:
        """Nothing was started, or nobody knows any more how it ends."""
        reason = masked_text(reason)
        print(f"failed: {reason}", file=sys.stderr)
        runs.update_manifest(self._out, reason=reason)


class _Shown:
    """Repeats on the terminal what is added to a file, from its end at the start."""

    def __init__(self, file: Path | None):
        self._file = file
        self._at = file.stat().st_size if file is not None and file.exists() else 0

    def go_on(self) -> None:
        if self._file is None or not self._file.exists():
            return
        with self._file.open("rb") as log:
            log.seek(self._at)
            new = log.read()
        self._at += len(new)
        if new:
            sys.stdout.write(new.decode("utf8", errors="replace"))
            sys.stdout.flush()
