"""What all tests share: the real command line in a process of its own, and a cache for the tiny model."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.command_line import Cli

pytest_plugins = ["support.stage_fixtures", "support.finished_runs"]


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder for the session, so that a test neither needs nor touches the user's own."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def environment(cache: Path) -> dict[str, str]:
    """The environment of a user who has set nothing."""
    ours = {"LLMF_CACHE": str(cache), "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1", "COLUMNS": "100"}
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return {**kept, **ours}


@pytest.fixture
def cli(environment: dict[str, str], tmp_path: Path) -> Cli:
    """`cli("stage=sft", env={...}, cwd=...)` runs `python -m llmf_hydra` in an empty folder."""

    def run(
        *words: str, env: dict[str, str] | None = None, cwd: Path | None = None, timeout: float = 240
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "llmf_hydra", *words],
            cwd=cwd or tmp_path,
            env={**environment, **(env or {})},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run
