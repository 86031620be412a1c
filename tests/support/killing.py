"""Ending a command with all that it started, as a power cut does."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from llmf_hydra.runs.folder import process_identity

MARK = "LLMF_TEST_MARK"  # in the environment of every process that a test is to kill


def processes(mark: str) -> list[int]:
    """All processes that have inherited the mark."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                if wanted in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
    return found


def kill_all(mark: str) -> None:
    """SIGKILL to every process with the mark, until none is left; one that ends gives up its mark before it is gone."""
    killed: set[int] = set()
    while alive := [pid for pid in processes(mark) if pid != os.getpid()]:
        for pid in alive:
            killed.add(pid)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    while any(process_identity(pid) is not None for pid in killed):
        time.sleep(0.01)
