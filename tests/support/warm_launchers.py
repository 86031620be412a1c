"""Command lines in processes forked from one that has imported the launcher: half a second less for each."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from llmf_hydra.runs.surroundings import fingerprint
from llmf_hydra.runs.warm import MESSAGE

LAUNCHERS = "LLMF_TESTS_LAUNCHERS"  # the address of the server that forks launchers for all tests
SERVER = """
import sys
from importlib import import_module
from llmf_hydra import terminal
from llmf_hydra.runs import fork_server
import llmf_hydra.__main__ as cli

def load():
    for name in ("launch", "refusals", "sweeps.sweeper", "cli.resume"):
        import_module(f"llmf_hydra.{name}")
    import_module("llmf_hydra.config.compose").composed(["model=tiny"])  # what Hydra's parser keeps of its grammar
    return True

words = fork_server.serve(int(sys.argv[1]), load)
if words is not None:
    sys.argv[:] = [cli.__file__, *words]
    terminal.leave(cli.main(words))
"""


class Launchers:
    """The server's client. A command line whose environment differs from the server's isn't taken."""

    def __init__(self, address: str):
        self._address = address

    def run(
        self, words: Sequence[str], env: Mapping[str, str], cwd: Path, timeout: float
    ) -> "subprocess.CompletedProcess[str] | None":
        """As `subprocess.run` would have answered, or None where the server doesn't take it.

        Raises subprocess.TimeoutExpired.
        """
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door, _files() as (out, err):
            door.connect(self._address)
            self._ask(door, words, env, cwd, [out.fileno(), err.fileno()])
            if _heard(door) != {"accepted": True}:
                return None
            pid = _heard(door)["pid"]
            door.settimeout(timeout)
            try:
                code = _heard(door)["code"]
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(list(words), timeout, _text(out), _text(err)) from None
            return subprocess.CompletedProcess(list(words), code, _text(out), _text(err))

    @staticmethod
    def _ask(
        door: socket.socket, words: Sequence[str], env: Mapping[str, str], cwd: Path, sinks: list[int]
    ) -> None:
        request = {"words": list(words), "environment": dict(env), "fingerprint": fingerprint(env)}
        opened = [os.open(os.devnull, os.O_RDONLY), os.open(cwd, os.O_RDONLY | os.O_DIRECTORY)]
        try:
            socket.send_fds(door, [json.dumps(request).encode()], [opened[0], *sinks, opened[1]])
        finally:
            for file in opened:
                os.close(file)


@contextmanager
def launchers(env: Mapping[str, str]) -> Iterator[str]:
    """A server with this environment, for as long as it is used; gives its address."""
    with (
        tempfile.TemporaryDirectory(prefix="llmf-", dir="/tmp") as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door,
    ):
        address = str(Path(folder) / "launchers")
        door.bind(address)
        door.listen(8)
        server = subprocess.Popen(
            [sys.executable, "-P", "-c", SERVER, str(door.fileno())],
            env=dict(env),
            stdin=subprocess.PIPE,  # its end tells the server to end
            pass_fds=[door.fileno()],
            start_new_session=True,
        )
        try:
            yield address
        finally:
            assert server.stdin is not None
            server.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                server.wait(5)
            server.kill()


@contextmanager
def _files() -> Iterator[
    tuple["tempfile._TemporaryFileWrapper[bytes]", "tempfile._TemporaryFileWrapper[bytes]"]
]:
    with tempfile.NamedTemporaryFile() as out, tempfile.NamedTemporaryFile() as err:
        yield out, err


def _text(file: "tempfile._TemporaryFileWrapper[bytes]") -> str:
    return Path(file.name).read_text(encoding="utf8", errors="replace")


def _heard(door: socket.socket) -> dict[str, int]:
    message = door.recv(MESSAGE)
    return json.loads(message) if message else {}
