"""Runs that are killed with SIGKILL, launcher and worker at once, at a moment that a test chooses."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from llmf_hydra.runs.checkpoints import PARTIAL

PATIENCE = 120.0  # seconds


def kill_when(
    seen: Callable[[Path], bool], words: Sequence[str], out: Path, env: dict[str, str], after: float = 0.0
) -> None:
    """Start a run in the folder `out`, and kill it `after` so many seconds from when `seen(out)` is true.

    Raises AssertionError where it came to its end before.
    """
    command = [sys.executable, "-m", "llmf_hydra", *words, f"hydra.run.dir={out.name}"]
    launcher = subprocess.Popen(command, cwd=out.parent, env=env, text=True,
                                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)  # fmt: skip
    end = time.monotonic() + PATIENCE
    while not seen(out):
        assert launcher.poll() is None, launcher.communicate()
        assert time.monotonic() < end
        time.sleep(0.001)
    time.sleep(after)
    pid: int = json.loads((out / "manifest.json").read_text(encoding="utf8"))["pid"]
    os.kill(launcher.pid, signal.SIGKILL)  # first, so that it can't say how the worker ended
    os.kill(pid, signal.SIGKILL)
    launcher.communicate()
    while _runs(pid):
        assert time.monotonic() < end
        time.sleep(0.005)


def _runs(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text(encoding="utf8")
    except (FileNotFoundError, ProcessLookupError):  # the latter if it ends while its state is read
        return False


def has_logged(lines: int) -> Callable[[Path], bool]:
    """Whether a run's log holds so many lines."""
    return lambda out: (out / "log.jsonl").exists() and (out / "log.jsonl").read_bytes().count(b"\n") >= lines


def is_writing(step: int) -> Callable[[Path], bool]:
    """Whether a run is in the middle of writing the checkpoint of a step."""
    return lambda out: any((out / PARTIAL / f"checkpoint-{step}").glob("*"))
