"""Ctrl-C while a command starts: exit code 130 or the signal itself, and no traceback."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

CODES = (130, -signal.SIGINT)  # a shell shows 130 for both


@pytest.mark.parametrize("module", ["llmf_hydra.terminal", "yaml", "omegaconf", "hydra.core.config_loader"])
def test_a_start_that_is_interrupted_says_nothing(
    module: str, environment: dict[str, str], tmp_path: Path
) -> None:
    """Interrupted right after a module is imported: one of our own first ones, then those of composing."""
    command = [sys.executable, "-X", "importtime", "-m", "llmf_hydra", "stage=sft", "model=tiny", "job=check"]
    start = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True, preexec_fn=_heed_ctrl_c
    )
    assert start.stderr is not None
    assert any(line.split("|")[-1].strip() == module for line in start.stderr)
    start.send_signal(signal.SIGINT)
    _, said = start.communicate(timeout=60)
    assert start.returncode in CODES and "Traceback" not in said, said
    assert list(tmp_path.iterdir()) == []


def _heed_ctrl_c() -> None:
    """A shell has what it starts in the background ignore Ctrl-C, and so do the tests that run there."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
