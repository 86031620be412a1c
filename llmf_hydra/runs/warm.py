"""Warm workers: forked from a server that has imported torch and its kin, they start in milliseconds.

    with warm.server(env):          # around the trials of a sweep
        run_worker(...)             # finds the server through LLMF_WORKERS

A forked worker is a process of its own with the launcher's terminal, working directory and environment. It computes
what a cold one would: where anything that a library reads at its import differs (see `surroundings`), or the server
is gone, the launcher starts a cold worker instead. The server's own side is `fork_server`. Linux only.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypedDict

from llmf_hydra.runs import isolation
from llmf_hydra.runs.folder import process_identity
from llmf_hydra.runs.surroundings import fingerprint

WORKER = "llmf_hydra.worker"  # the module whose command is a worker, and with --serve the server
WORKERS = "LLMF_WORKERS"  # the socket of the server, for all launchers that inherit the variable
MESSAGE = 2**17  # maximum bytes of a message; an environment above that size gets a cold worker
PATIENCE = 120.0  # seconds until a silent server is given up: it may be importing for another worker
PATIENCE_AT_END = 2.0  # seconds the server has to end when its owner is done
LONGEST_PATH = 100  # bytes; the kernel takes 107 for a socket


@contextmanager
def server(env: Mapping[str, str]) -> Iterator[None]:
    """Within, this process and those it starts fork their workers, unless a server is named already."""
    if WORKERS in os.environ or sys.platform != "linux":
        yield
        return
    with started(env) as address:
        os.environ[WORKERS] = address
        try:
            yield
        finally:
            del os.environ[WORKERS]


@contextmanager
def started(env: Mapping[str, str]) -> Iterator[str]:
    """A server with the environment of the workers to come; gives the address that LLMF_WORKERS is to hold.

    It imports when the first worker is asked for, and ends when this process does.
    """
    with _private_folder() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
        address = str(Path(folder) / "workers")
        door.bind(address)
        door.listen(64)
        command = isolation.command(WORKER, "--serve", str(door.fileno()))
        process = subprocess.Popen(
            command,
            env=dict(env),
            stdin=subprocess.PIPE,  # its end tells the server that its owner is gone
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[door.fileno()],
            start_new_session=True,  # Ctrl-C is the launcher's to pass on
        )
        try:
            yield address
        finally:
            _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    assert process.stdin is not None  # a pipe
    process.stdin.close()
    try:
        process.wait(PATIENCE_AT_END)
    except (
        subprocess.TimeoutExpired
    ):  # it is importing, or has workers, which the kernel asks to save and end
        process.kill()
        process.wait()


def _private_folder() -> "tempfile.TemporaryDirectory[str]":
    """A folder that no other user may enter, with a path that is short enough for a socket."""
    short = len(os.fsencode(tempfile.gettempdir())) < LONGEST_PATH - 30
    return tempfile.TemporaryDirectory(prefix="llmf-", dir=None if short else "/tmp")


class Forked:
    """A forked worker, in the manner of `subprocess.Popen`: poll, wait, send_signal, returncode."""

    def __init__(self, server: socket.socket):
        self.returncode: int | None = None
        self._server = server
        self._process: tuple[int, str | None] | None = None  # pid and start time; None until it is forked

    def poll(self) -> int | None:
        """The exit code, -N where signal N ended the worker, or None while it runs."""
        while self.returncode is None and self._readable(0):
            self._hear(_receive(self._server))
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the worker's end; returns its exit code. Raises subprocess.TimeoutExpired."""
        end = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                raise subprocess.TimeoutExpired("forked worker", timeout or 0.0)
            self._readable(left)
        return code

    def send_signal(self, number: int) -> None:
        """Have the server pass a signal on; a worker that isn't forked yet never will be."""
        if self.poll() is not None:
            return
        if self._process is None:
            self._end(-number)
            return
        try:
            self._server.send(json.dumps({"signal": int(number)}).encode())
        except OSError:
            self.poll()

    def _readable(self, timeout: float | None) -> bool:
        poller = select.poll()
        poller.register(self._server, select.POLLIN)
        return bool(poller.poll(None if timeout is None else timeout * 1000))

    def _hear(self, message: Mapping[str, int] | None) -> None:
        if message is None:
            self._lost()
        elif "pid" in message:
            self._process = message["pid"], process_identity(message["pid"])
        else:
            self._end(message["code"])

    def _lost(self) -> None:
        """The server is gone: the kernel asks its workers to save and end, and they say themselves how they did."""
        if self._process is not None:
            pid, started_at = self._process
            while started_at is not None and process_identity(pid) == started_at:
                time.sleep(0.05)
        self._end(-signal.SIGTERM)

    def _end(self, code: int) -> None:
        self.returncode = code
        self._server.close()


class Request(TypedDict):
    """What a launcher asks of the server; the files that the worker gets travel beside it."""

    words: list[str]
    environment: dict[str, str]
    fingerprint: str


def fork(words: Sequence[str], env: Mapping[str, str], sink: IO[bytes] | None) -> Forked | None:
    """Ask for a worker with these words of its command; None where there is no server or it isn't alike.

    `sink` takes what the worker prints; None is the terminal of this process.
    """
    address = env.get(WORKERS)
    if not address or sys.platform != "linux":
        return None
    door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        door.settimeout(PATIENCE)
        door.connect(address)
        _ask(door, words, env, sink)
        if _receive(door) == {"accepted": True}:
            door.settimeout(None)
            return Forked(door)
    except OSError:
        pass  # no server any more, or an environment beyond the size of a message: as good cold, only slower
    door.close()
    return None


def _ask(door: socket.socket, words: Sequence[str], env: Mapping[str, str], sink: IO[bytes] | None) -> None:
    out, err = (1, 2) if sink is None else (sink.fileno(), sink.fileno())
    request: Request = {"words": list(words), "environment": dict(env), "fingerprint": fingerprint(env)}
    here = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        socket.send_fds(door, [json.dumps(request).encode()], [0, out, err, here])
    finally:
        os.close(here)


def _receive(door: socket.socket) -> dict[str, int] | None:
    try:
        message = door.recv(MESSAGE)
    except ConnectionError:
        return None
    return json.loads(message) if message else None
