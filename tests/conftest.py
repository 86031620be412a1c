"""What all tests share: the real command line in a process of its own, and a cache for the tiny model."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.command_line import Cli, worker_environment
from support.shared import made_once
from support.warm_launchers import Launchers, launchers

from llmf_hydra.runs import warm

pytest_plugins = ["support.stage_fixtures", "support.finished_runs", "support.small_disk"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files of few tests come first: theirs are whole runs, and one of them at the end would keep a core idle."""
    tests = Counter(item.path for item in items)
    items.sort(key=lambda item: tests[item.path])


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder for the session, so that a test neither needs nor touches the user's own."""
    return made_once(tmp_path_factory, "cache", lambda _: {})[0]


@pytest.fixture(scope="session")
def environment(cache: Path) -> Iterator[dict[str, str]]:
    """The environment of a user who has set nothing but a thread per process; this test run's server forks workers."""
    ours = {"LLMF_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "COLUMNS": "100"}
    ours |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}  # tests run side by side
    # Without a locale Python sets LC_CTYPE itself: a server's environment would not be that of its launchers.
    ours["LC_ALL"] = "C.UTF-8"
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    env = {**kept, **ours}
    with warm.started(worker_environment(env)) as address:
        yield {**env, warm.WORKERS: address}


@pytest.fixture(scope="session")
def warm_launchers(environment: dict[str, str]) -> Iterator[Launchers]:
    """Launchers that needn't import anything, for the environment of a user who has set nothing."""
    with launchers(environment) as started:
        yield started


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
