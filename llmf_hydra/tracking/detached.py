"""`Detached`: a tracker in a process of its own, so that it can't delay, hang or end the training.

The trackers' libraries take seconds to import and to start, talk to servers, and print. In their own process
none of that is the training's: calls are sent through a pipe and done in order. If the training is killed,
the pipe ends, and the tracker closes the run as killed.

    python -m llmf_hydra.tracking.detached      reads pickled calls from stdin; started by Detached only
"""

import os
import pickle
import queue
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from llmf_hydra.runs import isolation
from llmf_hydra.runs.folder import process_identity
from llmf_hydra.tracking.contract import KILLED, FinalModel, RunInfo, Table, Tracker
from llmf_hydra.tracking.reach import Unreachable

PATIENCE = 45.0  # seconds the end of a run waits for a tracker that gets nothing done
LONGEST_UPLOAD = 3600.0  # seconds that keeping a model may take
GOT_ON = "."  # printed by the process after each call
REASON = "tracker failed: "  # begins the line in which the process says why it ends


class TrackerError(RuntimeError):
    """The tracker's process ended early or didn't come to its end."""


class Detached(Tracker):
    """Runs `tracker` in a process of its own. Each call raises TrackerError once that process has failed."""

    def __init__(self, tracker: Tracker, patience: float = PATIENCE):
        self.name = tracker.name
        self._tracker = tracker
        self._patience = patience

    def start(self, info: RunInfo) -> None:
        self._mark = info.out / f".{self.name}.pid"
        before = self._mark.read_text(encoding="utf8") if self._mark.exists() else ""
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 -- open as long as the process
        self._process = subprocess.Popen(
            isolation.command("llmf_hydra.tracking.detached"),
            stdin=subprocess.PIPE,
            stdout=self._said,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is the training's to answer; the end of the pipe tells us
        )
        # Before anything is sent: a process without a message does nothing.
        self._mark.write_text(_identity(self._process.pid), encoding="utf8")
        self._send(self._tracker)
        self._send(("after", before))
        self._send(("start", info))

    def log(self, metrics: dict[str, float], step: int) -> None:
        self._send(("log", metrics, step))

    def log_table(self, table: Table) -> None:
        self._send(("table", table))

    def log_model(self, model: FinalModel) -> None:
        self._send(("model", model))

    def finish(self, status: str, summary: dict[str, float], files: list[Path]) -> None:
        self._send(("finish", status, summary, files))
        code = self._end()
        self._mark.unlink(missing_ok=True)
        if code != 0:
            raise TrackerError(self._last_words())

    def _end(self) -> int:
        """The exit code of the process, which has time as long as it gets on with its calls."""
        said = -1
        while (now := os.fstat(self._said.fileno()).st_size) != said:
            said = now
            try:
                return self._process.wait(self._patience)
            except subprocess.TimeoutExpired:
                continue
        self._process.kill()
        self._process.wait()
        raise TrackerError(f"stuck for {self._patience:g} seconds at the end of the run")

    def _send(self, message: object) -> None:
        pipe = self._process.stdin
        assert pipe is not None  # asked for in start
        try:
            pickle.dump(message, pipe)
            pipe.flush()
        except BrokenPipeError:
            self._process.wait()
            raise TrackerError(self._last_words()) from None

    def _last_words(self) -> str:
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").split("\n")
        reasons = [line.removeprefix(REASON) for line in lines if line.startswith(REASON)]
        return reasons[-1] if reasons else f"its process ended with code {self._process.returncode}"


def main() -> None:
    """Do the calls that come in until the run is finished or its process is gone."""
    tracker: Tracker = pickle.load(sys.stdin.buffer)
    calls: queue.Queue[object] = queue.Queue()
    # A thread empties the pipe at all times: full, it would hold up the training.
    threading.Thread(target=_receive, args=(sys.stdin.buffer, calls), daemon=True).start()
    try:
        while not _do(calls.get(), tracker):
            print(GOT_ON, end="", flush=True)
    except Exception as error:
        traceback.print_exc()
        message = " ".join(str(error).split())[:300]
        reason = message if isinstance(error, Unreachable) else f"{type(error).__name__}: {message}"
        print(f"\n{REASON}{reason}", flush=True)
        # The thread still reads; Python's own way to end would abort on it.
        os._exit(1)


def _receive(pipe: IO[bytes], calls: "queue.Queue[object]") -> None:
    try:
        finished = False
        while not finished:
            call = pickle.load(pipe)
            calls.put(call)
            finished = call[0] == "finish"
    except (EOFError, pickle.UnpicklingError):  # the sender is gone, perhaps in the middle of a call
        calls.put(("finish", KILLED, {}, []))


def _do(call: object, tracker: Tracker) -> bool:
    """Do one call; returns whether it was the last."""
    match call:
        case ("after", before):
            _wait_for(before)
        case ("start", info):
            tracker.start(info)
        case ("log", metrics, step):
            tracker.log(metrics, step)
        case ("table", table):
            tracker.log_table(table)
        case ("model", model):
            with _getting_on():
                tracker.log_model(model)
        case ("finish", status, summary, files):
            tracker.finish(status, summary, files)
            return True
    return False


@contextmanager
def _getting_on() -> Iterator[None]:
    """Say, within, every few seconds that the call is at work: a large model takes long, which is no hang."""
    done = threading.Event()

    def say() -> None:
        end = time.monotonic() + LONGEST_UPLOAD
        while not done.wait(PATIENCE / 5) and time.monotonic() < end:
            print(GOT_ON, end="", flush=True)

    threading.Thread(target=say, daemon=True).start()
    try:
        yield
    finally:
        done.set()


def _identity(pid: int) -> str:
    """A process of this machine, as a text that no other process ever has."""
    return f"{socket.gethostname()} {pid} {process_identity(pid)}"


def _wait_for(before: str) -> None:
    """Wait for the tracker of a run that was killed a moment ago: it still logs what the training had sent it."""
    while before and before == _identity(int(before.split()[1])):
        time.sleep(0.05)


if __name__ == "__main__":
    main()
