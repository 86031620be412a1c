"""What all tests share: the real command line in a process of its own, and a cache for the tiny model."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.command_line import Cli, worker_environment

from llmf_hydra.runs import warm

pytest_plugins = ["support.stage_fixtures", "support.finished_runs"]


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder for the session, so that a test neither needs nor touches the user's own."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def environment(cache: Path) -> Iterator[dict[str, str]]:
    """The environment of a user who has set nothing, in which workers are forked from a server of this test run."""
    ours = {"LLMF_CACHE": str(cache), "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1", "COLUMNS": "100"}
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    env = {**kept, **ours}
    with warm.started(worker_environment(env)) as address:
        yield {**env, warm.WORKERS: address}


@pytest.fixture
def cli(environment: dict[str, str], tmp_path: Path) -> Cli:
    """`cli("stage=sft", env={...}, cwd=...)` runs `python -m llmf_hydra` in an empty folder; `cold=True` has its
    workers import everything themselves.
    """

    def run(
        *words: str,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
        timeout: float = 240,
        cold: bool = False,
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "llmf_hydra", *words],
            cwd=cwd or tmp_path,
            env={**environment, **({warm.WORKERS: ""} if cold else {}), **(env or {})},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run
