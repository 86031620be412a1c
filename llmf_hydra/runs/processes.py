"""The workers as processes: their environment, their signals, their end."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import IO, Any, Protocol

from llmf_hydra.config.groups.launch import LaunchConfig
from llmf_hydra.config.record import hidden, is_handed
from llmf_hydra.config.schema import Config
from llmf_hydra.errors import DONE, FAILED, INTERRUPTED, PRUNED
from llmf_hydra.optional import WITHOUT
from llmf_hydra.runs import folder as runs
from llmf_hydra.runs import imports, isolation, ranks, signals, warm
from llmf_hydra.runs.manifest import cores
from llmf_hydra.runs.schedulers import remote
from llmf_hydra.runs.schedulers.host import KILL

# Of several workers, once one has ended badly: seconds until the others are asked to end (each may have found the
# same and be about to say so), and from then until they are killed.
GRACE = 1.0
PATIENCE = 10.0
PATIENCE_LOADING = 2.0  # where nothing was trained yet, nothing can be lost
STOPPED_LOADING = (signals.EARLY, -signal.SIGTERM)  # the latter before a worker listens to signals
OUTPUT = remote.LOG
THREADS = "LLMF_THREADS"  # has a worker compute with so many threads, which may be more than there are cores
CUBLAS, REPEATABLE = (
    "CUBLAS_WORKSPACE_CONFIG",
    ":4096:8",
)  # one of the two values with which cuBLAS repeats itself
# How often a waiting thread looks before it sleeps. To sleep at once and be woken takes longer than most operators of a
# small model do (a step of SmolLM2: 1.7 times as long); to spin without bound keeps other programs from the core.
SPINS, BRIEF = "GOMP_SPINCOUNT", "1000"
OPTIM_TORCH = {"PYTORCH_ALLOC_CONF": "expandable_segments:True", "TORCH_NCCL_AVOID_RECORD_STREAMS": "1"}
DEFAULTS = {
    "PYTHONHASHSEED": "0",
    "TOKENIZERS_PARALLELISM": "true",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",  # Transformers and Datasets look at it too
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


class Worker(Protocol):
    """A worker as its launcher sees it: a `subprocess.Popen`, a `warm.Forked` or a `remote.Remote`."""

    @property
    def returncode(self) -> int | Any: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, number: int, /) -> None: ...


def of_each(base: dict[str, str], world: int) -> Iterator[dict[str, str]]:
    """The environment of each of `world` workers on this machine, which train together and share its cores."""
    port = _free_port() if world > 1 else 0
    for rank in range(world):
        env = dict(base)
        ranks.assign(env, rank, world, port)
        if world > 1:
            env.setdefault("OMP_NUM_THREADS", str(max(1, cores() // world)))
        yield env


def _free_port() -> int:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return door.getsockname()[1]


def environment(cfg: Config) -> dict[str, str]:
    """The environment of all workers: the launcher's, and what the config says of threads, devices and secrets."""
    base = {name: value for name, value in os.environ.items() if not is_handed(name) and name != WITHOUT}
    if cfg.training.deterministic:
        base.setdefault(CUBLAS, REPEATABLE)
    return launch_environment(cfg.launch, base) | imports.environment(cfg) | hidden(cfg)


def launch_environment(launch: LaunchConfig, base: Mapping[str, str]) -> dict[str, str]:
    """What libraries read when they are imported, on top of the environment of a launcher, whose own words count.

    PYTHONHASHSEED is fixed, since the order of a set of strings reaches files on disk (adapter_config.json).
    """
    said = {"DEBUG": "info", "INFO": "error", "WARN": "error"}[launch.verbosity]
    env = {**DEFAULTS, "TRANSFORMERS_VERBOSITY": said, **base}
    env["OMP_WAIT_POLICY"] = launch.omp_wait_policy
    if launch.omp_wait_policy.upper() == "PASSIVE":
        env.setdefault(SPINS, BRIEF)
    if launch.omp_num_threads is not None:
        env["OMP_NUM_THREADS"] = str(launch.omp_num_threads)
    if launch.cuda_visible_devices is not None:
        env["CUDA_VISIBLE_DEVICES"] = launch.cuda_visible_devices
    if launch.ascend_rt_visible_devices is not None:
        env["ASCEND_RT_VISIBLE_DEVICES"] = launch.ascend_rt_visible_devices
    if launch.optim_torch:
        env = {**OPTIM_TORCH, **env}
    return isolation.with_package(env)


def run_worker(out: Path, cfg: Config, *, quiet: bool, resume: bool = False) -> int:
    """Run the workers of a folder to their end; returns the exit code and leaves the right status behind.

    SIGINT and SIGTERM are passed on once, so that the trainer saves its state; a second one kills.
    `quiet` sends what the workers print to `worker.log` in the folder.
    """
    words = [str(out), *(["--resume"] if resume else [])]
    world = cfg.launch.nproc_per_node if cfg.job.name == "train" else 1
    if remote.wanted(cfg.launch):
        code = attend([partial(remote.start, out, words, environment(cfg), world, cfg.launch, quiet)])
    else:
        with _Output(out, quiet) as sink:
            code = attend([partial(_start, words, env, sink) for env in of_each(environment(cfg), world)])
    code = INTERRUPTED if code in STOPPED_LOADING else code
    settle(out, code, alone=world == 1)
    return code if code >= 0 else FAILED


def run_on_node(words: list[str], world: int) -> int:
    """Run workers in this process's own environment; returns their exit code, -N where signal N ended them.

    KILL, which stands for SIGKILL here, kills them; another signal asks them to save, however often it comes.
    """
    envs = of_each(dict(os.environ), world)
    return attend([partial(_start, words, env, None) for env in envs], kill_on=KILL)


def attend(starts: Sequence[Callable[[], Worker]], kill_on: int | None = None) -> int:
    """Start workers and see them to their end; returns the exit code of the run.

    SIGINT and SIGTERM are passed on as SIGTERM. What kills is the signal `kill_on`, or without it a second signal.
    """
    workers: list[Worker] = []
    with _Forwarding(workers, kill_on) as forwarding:
        for start in starts:
            workers.append(start())
            forwarding.catch_up()
        code = _wait(workers)
    return INTERRUPTED if code < 0 and forwarding.was_impatient else code


def _start(words: list[str], env: dict[str, str], sink: IO[bytes] | None) -> Worker:
    """A worker process: forked where a warm server is at hand and alike, else started cold."""
    return warm.fork(words, env, sink) or subprocess.Popen(
        isolation.command(warm.WORKER, *words),
        env=env,
        stdout=sink,
        stderr=sink and subprocess.STDOUT,
        start_new_session=True,
    )


def _wait(workers: Sequence[Worker]) -> int:
    """The exit code of the run: that of the first worker that ended badly, after which the others are stopped."""
    first, ended_at, asked = DONE, 0.0, False
    while any(worker.poll() is None for worker in workers):
        waited = time.monotonic() - ended_at
        if first == DONE:
            first = _bad(workers)
            ended_at = time.monotonic()
        elif first == PRUNED:
            _send(workers, signal.SIGKILL)  # the others wait for it, and nothing of them is wanted
        elif first == INTERRUPTED:
            pass  # each saves what is its own, however long it takes
        elif waited > GRACE and not asked:
            asked = True
            _send(workers, signal.SIGTERM)
        elif waited > GRACE + (PATIENCE_LOADING if first in STOPPED_LOADING else PATIENCE):
            _send(workers, signal.SIGKILL)  # it waits for an answer of the one that is gone
        _wait_a_little(workers)
    return first or _bad(workers)


def _bad(workers: Sequence[Worker]) -> int:
    """The exit code of a worker that ended badly, if one has: where one was killed others fail of it at once."""
    codes = [worker.returncode for worker in workers if worker.returncode]
    return next((code for code in codes if code < 0), codes[0] if codes else DONE)


def _wait_a_little(workers: Sequence[Worker]) -> None:
    alive = [worker for worker in workers if worker.poll() is None]
    try:
        for worker in alive[:1]:
            worker.wait(None if len(workers) == 1 else 0.1)
    except subprocess.TimeoutExpired:
        pass


def _send(workers: Sequence[Worker], number: int) -> None:
    for worker in workers:
        if worker.poll() is None:
            worker.send_signal(number)


def settle(out: Path, code: int, *, alone: bool = True) -> None:
    """Set the status of a run whose worker is gone and could not set it itself.

    Of several workers it is not the first one alone that decides how the run ended.
    """
    untold = runs.read_manifest(out)["status"] in ("created", "running")
    if not untold and (alone or code == DONE):
        return
    status = runs.ended_as(code)
    told: dict[str, str] = {}
    if untold and status == "failed":
        told["reason"] = f"its process ended with exit code {code} and without a word"
        print(f"failed: {told['reason']}", file=sys.stderr)
    # On a full disk the last status stays: `running`, which reads as killed once the process is gone.
    with suppress(OSError):
        runs.update_manifest(out, status=status, ended=runs.now(), exit_code=code, **told)


def remove_refused(out: Path, made: Sequence[Path]) -> None:
    """Take away what a run left whose worker refused it before anything was trained.

    Of the folders only those go that the run has `made`, the inmost first: an empty one of the user's stays.
    """
    held = list(out.iterdir())
    if {entry.name for entry in held} <= {
        runs.CONFIG,
        runs.MANIFEST,
        remote.LOG,
        remote.SUBMITIT,
        "git.diff",
    }:
        for entry in held:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        for folder in made:
            with suppress(OSError):  # it holds something else
                folder.rmdir()


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
    """While entered, SIGINT and SIGTERM go to the workers: first as SIGTERM, then as SIGKILL (see `attend`)."""

    def __init__(self, workers: Sequence[Worker], kill_on: int | None):
        self._workers = workers
        self._kill_on = kill_on
        self._last: int | None = None  # the signal that was sent last

    def __enter__(self) -> "_Forwarding":
        self._before = {
            number: signal.signal(number, self._pass_on)
            for number in (signal.SIGINT, signal.SIGTERM, self._kill_on)
            if number is not None
        }
        return self

    @property
    def was_impatient(self) -> bool:
        """Whether a second signal killed the workers: the user stopped the run, it did not fail."""
        return self._kill_on is None and self._last == signal.SIGKILL

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def catch_up(self) -> None:
        """Send to the worker that was started last what came while it was started."""
        if self._last is not None:
            _send(self._workers[-1:], self._last)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        kills = self._last is not None if self._kill_on is None else number == self._kill_on
        self._last = signal.SIGKILL if kills else signal.SIGTERM
        _send(self._workers, self._last)
