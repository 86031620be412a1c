"""The server behind `warm`: it imports once, then forks a worker per request, and says how each ended.

One thread and no pool of any kind, so that a fork is safe; a worker that dies takes nothing with it. The server ends
when its owner is gone (its stdin ends) and its workers are done, or when nobody has asked for long.
"""

import gc
import json
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from llmf_hydra.runs import isolation, signals
from llmf_hydra.runs.surroundings import fingerprint
from llmf_hydra.runs.warm import MESSAGE, WORKER, Request

IDLE = 15 * 60.0  # seconds without a worker until the server ends
OWNER = 0  # stdin
FILES = 4  # descriptors that come with a request: stdin, stdout, stderr, working directory
ANSWER = 5.0  # seconds a launcher has for its request


def serve(door: int, load: Callable[[], bool]) -> list[str] | None:
    """Answer at a listening socket until the owner is gone; in each forked worker it returns the worker's words.

    `load` imports what workers need and says whether a fork of the result is safe; else each worker is a cold start.
    None is returned in the server, at its end.
    """
    server = _Server(socket.socket(fileno=door), load)
    while server.in_use():
        ready = server.poller.poll(IDLE * 1000 if not server.workers else None)
        # One at a time: what is done for it may close other descriptors, and open new ones under their numbers.
        words = server.answer(ready[0][0] if ready else OWNER)
        if words is not None:
            return words
    return None


@dataclass
class _Worker:
    """A forked worker, seen from its parent."""

    pid: int
    handle: int  # pidfd
    launcher: socket.socket

    def send_signal(self, number: int) -> None:
        signal.pidfd_send_signal(self.handle, number)


@dataclass
class _Server:
    door: socket.socket
    load: Callable[[], bool]
    poller: select.poll = field(default_factory=select.poll)
    workers: dict[int, _Worker] = field(
        default_factory=dict
    )  # by the descriptor of the worker and its launcher
    own: str | None = None  # the fingerprint, once all is imported
    safe: bool = False
    closed: bool = False

    def __post_init__(self) -> None:
        self.started_with = dict(os.environ)
        self.poller.register(OWNER, select.POLLIN)
        self.poller.register(self.door, select.POLLIN)

    def in_use(self) -> bool:
        return bool(self.workers) or not self.closed

    def answer(self, file: int) -> list[str] | None:
        """Handle what happened at a descriptor; in a new worker, and only there, returns its words."""
        if file == OWNER:
            self._close()
        elif file == self.door.fileno():
            return self._request(self.door.accept()[0])
        elif (worker := self.workers.get(file)) is not None:
            if file == worker.handle:
                self._ended(worker)
            else:
                self._said(worker)
        return None

    def _close(self) -> None:
        """Take no more requests: the owner is gone, or there were none for long."""
        if not self.closed:
            self.poller.unregister(OWNER)
            self.poller.unregister(self.door)
            self.closed = True

    def _request(self, launcher: socket.socket) -> list[str] | None:
        launcher.settimeout(ANSWER)
        message, files = _first_message(launcher)
        try:
            request: Request | None = json.loads(message) if message else None
            if (
                request is None
                or len(files) != FILES
                or not self._is_alike(request)
                or not _say(launcher, {"accepted": True})
            ):
                launcher.close()
                return None
            self._import_once()
            if _is_gone(launcher):  # it was stopped meanwhile
                launcher.close()
                return None
            return self._fork(launcher, request, files)
        finally:
            for file in files:
                os.close(file)

    def _is_alike(self, request: Request) -> bool:
        own = self.own or fingerprint(self.started_with)
        return request["fingerprint"] == own

    def _import_once(self) -> None:
        if self.own is not None:
            return
        self.own = fingerprint(self.started_with)
        try:
            self.safe = self.load() and threading.active_count() == 1
        except Exception:
            self.safe = False  # a cold worker fails in the same way, where its launcher sees it
        gc.collect()
        gc.freeze()  # a collection in a worker would write to pages that are shared

    def _fork(self, launcher: socket.socket, request: Request, files: list[int]) -> list[str] | None:
        server = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._become_worker(launcher, request, files, server)
            return request["words"]
        worker = _Worker(pid, os.pidfd_open(pid), launcher)
        for file, events in ((worker.handle, select.POLLIN), (launcher.fileno(), select.POLLIN)):
            self.workers[file] = worker
            self.poller.register(file, events)
        _say(launcher, {"pid": pid})
        return None

    def _become_worker(
        self, launcher: socket.socket, request: Request, files: list[int], server: int
    ) -> None:
        """In the child: what a process that was just started with this request would find."""
        os.setsid()
        signals.end_with_parent()
        if os.getppid() != server:  # it was gone before that
            os._exit(128 + signal.SIGTERM)
        for target, file in enumerate(files[:-1]):
            os.dup2(file, target)
        os.fchdir(files[-1])
        for other in {launcher, self.door, *(worker.launcher for worker in self.workers.values())}:
            other.close()
        for handle in {worker.handle for worker in self.workers.values()}:
            os.close(handle)
        if not self.safe:
            command = isolation.command(WORKER, *request["words"])
            os.execve(command[0], command, request["environment"])
        os.environ.clear()
        os.environ.update(request["environment"])
        sys.stdout.reconfigure(line_buffering=sys.stdout.isatty())  # type: ignore[union-attr]  # a TextIOWrapper

    def _ended(self, worker: _Worker) -> None:
        _, status = os.waitpid(worker.pid, 0)
        _say(worker.launcher, {"code": os.waitstatus_to_exitcode(status)})
        self._forget(worker.launcher.fileno())
        self._forget(worker.handle)
        os.close(worker.handle)
        worker.launcher.close()

    def _said(self, worker: _Worker) -> None:
        """A launcher passes a signal on; one that is gone stops its worker, which saves."""
        try:
            message = worker.launcher.recv(MESSAGE)
        except ConnectionError:
            message = b""
        if message:
            worker.send_signal(json.loads(message)["signal"])
        else:
            self._forget(worker.launcher.fileno())
            worker.send_signal(signal.SIGTERM)

    def _forget(self, file: int) -> None:
        if self.workers.pop(file, None) is not None:
            self.poller.unregister(file)


def _say(launcher: socket.socket, message: Mapping[str, int]) -> bool:
    """Tell a launcher; returns whether it is still there."""
    try:
        launcher.send(json.dumps(message).encode())
    except OSError:
        return False
    return True


def _first_message(launcher: socket.socket) -> tuple[bytes, list[int]]:
    try:
        message, files, _, _ = socket.recv_fds(launcher, MESSAGE, FILES)
    except OSError:
        return b"", []
    return message, files


def _is_gone(launcher: socket.socket) -> bool:
    poller = select.poll()
    poller.register(launcher, select.POLLIN)
    return bool(poller.poll(0))
