"""What all tests share: the real command line in a process of its own, and a cache for the tiny model."""

import gc
import os
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.command_line import Cli, worker_environment
from support.shared import made_once
from support.warm_launchers import LAUNCHERS, Launchers, launchers

from llmf_hydra.runs import warm

SERVED_WORKERS = "LLMF_TESTS_WORKERS"  # the address of the server that forks workers for all tests
pytest_plugins = ["support.stage_fixtures", "support.finished_runs", "support.small_disk"]

SERVERS = pytest.StashKey[ExitStack]()


def pytest_configure(config: pytest.Config) -> None:
    """Start the servers that fork launchers and workers, once for all processes of the tests. They import nothing
    until they are asked."""
    gc.disable()  # while tests are collected: what they import is kept
    if hasattr(config, "workerinput"):
        return
    config.stash[SERVERS] = servers = ExitStack()
    env = user_environment()
    os.environ[SERVED_WORKERS] = servers.enter_context(warm.started(worker_environment(env)))
    os.environ[LAUNCHERS] = servers.enter_context(launchers(env))


def pytest_unconfigure(config: pytest.Config) -> None:
    if SERVERS in config.stash:
        config.stash[SERVERS].close()


def pytest_collection_finish() -> None:
    """What was imported is looked at by no collection of garbage from here on."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files of few tests come first: theirs are whole runs, and one of them at the end would keep a core idle."""
    tests = Counter(item.path for item in items)
    items.sort(key=lambda item: tests[item.path])


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder for the session, so that a test neither needs nor touches the user's own."""
    return made_once(tmp_path_factory, "cache", lambda _: {})[0]


def user_environment() -> dict[str, str]:
    """The environment of a user who has set nothing but a thread per process, without the cache."""
    ours = {"HF_HUB_OFFLINE": "1", "COLUMNS": "100"}
    ours |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}  # tests run side by side
    # Without a locale Python sets LC_CTYPE itself: a server's environment would not be that of its launchers.
    ours["LC_ALL"] = "C.UTF-8"
    return {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ} | ours


@pytest.fixture(scope="session")
def environment(cache: Path) -> dict[str, str]:
    """The environment of a user with a cache of his own; the tests' server forks the workers."""
    return {**user_environment(), "LLMF_CACHE": str(cache), warm.WORKERS: os.environ[SERVED_WORKERS]}


@pytest.fixture(scope="session")
def warm_launchers() -> Launchers:
    """Launchers that needn't import anything, for the environment of a user who has set nothing."""
    return Launchers(os.environ[LAUNCHERS])


@pytest.fixture
def cli(environment: dict[str, str], warm_launchers: Launchers, tmp_path: Path) -> Cli:
    """`cli("stage=sft", env={...}, cwd=...)` answers as `python -m llmf_hydra` does, in an empty folder; with
    `cold=True` it is that command, and its workers import everything themselves.
    """

    def run(
        *words: str,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
        timeout: float = 240,
        cold: bool = False,
    ) -> "subprocess.CompletedProcess[str]":
        given = {**environment, **({warm.WORKERS: ""} if cold else {}), **(env or {})}
        answer = None if cold else warm_launchers.run(words, given, cwd or tmp_path, timeout)
        if answer is not None:
            return answer
        return subprocess.run(
            [sys.executable, "-m", "llmf_hydra", *words],
            cwd=cwd or tmp_path,
            env=given,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run
