"""Command lines as a user would type them: shown, run to their end, or started so that they outlive the page.

outputs/.webui/<time>_<id>/
    command.json    words, process, when            output.txt      what the command printed
"""

import json
import os
import secrets as randomness
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from llmf_hydra.config.quoting import command_line
from llmf_hydra.config.record import is_handed
from llmf_hydra.config.secrets import learn_words, masked_text, masked_word
from llmf_hydra.runs import folder as runs
from llmf_hydra.runs import isolation
from llmf_hydra.runs.opening import opened
from llmf_hydra.webui.fields import Place

STARTED = ".webui"  # below the outputs folder
COMMAND, OUTPUT = "command.json", "output.txt"
TAIL = 20_000  # bytes of an output that are shown
PATIENCE = 60.0  # seconds for a command that is waited for


@dataclass(frozen=True)
class Answer:
    """What a command that was waited for has printed; `code` is its exit code, None where it took too long."""

    code: int | None
    out: str
    err: str

    @property
    def text(self) -> str:
        """All of it, for people."""
        parts = [
            self.out.rstrip(),
            self.err.rstrip(),
            "" if self.code is not None else "took too long, and was ended",
        ]
        return "\n".join(part for part in parts if part)


@dataclass(frozen=True)
class Started:
    """A command that was started from the page, now or by an earlier page."""

    folder: Path
    words: list[str]
    pid: int
    pid_started: str | None
    time: str

    @property
    def running(self) -> bool:
        """Whether its process is there still."""
        return self.pid_started is not None and runs.process_identity(self.pid) == self.pid_started

    @property
    def shown(self) -> str:
        """The command as it would be typed."""
        return command_line(self.words)

    @property
    def output(self) -> str:
        """The end of what it has printed."""
        return tail(self.folder / OUTPUT)

    def run(self, place: Place) -> Path | None:
        """The folder of the run it began, once it says so."""
        with suppress(OSError), (self.folder / OUTPUT).open(encoding="utf8", errors="replace") as file:
            return opened(file.readline(), place.cwd)
        return None


def shown(words: Sequence[str]) -> str:
    """The command as it would be typed, its secrets masked."""
    return command_line(map(masked_word, words))


def environment() -> dict[str, str]:
    """The page's own, without what is the page's alone: its secrets, and Gradio's variables."""
    return {
        name: value
        for name, value in os.environ.items()
        if not is_handed(name) and not name.startswith("GRADIO_") and name != "API_KEY"
    }


def answer(words: Sequence[str], place: Place, timeout: float = PATIENCE) -> Answer:
    """Run a command to its end, at most `timeout` seconds."""
    learn_words(words)
    with subprocess.Popen(
        isolation.command("llmf_hydra", *words),
        cwd=place.cwd,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return Answer(None, *map(masked_text, process.communicate()))
        return Answer(process.returncode, masked_text(out), masked_text(err))


def start(words: Sequence[str], place: Place) -> Started:
    """Start a command in a session of its own: neither a closed tab nor the end of the page ends it."""
    learn_words(words)
    folder = place.outputs / STARTED / f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{randomness.token_hex(3)}"
    folder.mkdir(parents=True)
    with (folder / OUTPUT).open("xb") as output:
        process = subprocess.Popen(
            isolation.command("llmf_hydra", *words),
            cwd=place.cwd,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _children.append(process)
    identity = runs.process_identity(process.pid)
    started = Started(folder, list(map(masked_word, words)), process.pid, identity, runs.now())
    record = {"words": started.words, "pid": started.pid, "pid_started": identity, "time": started.time}
    runs.write_json(folder / COMMAND, record)
    return started


def all_started(place: Place) -> list[Started]:
    """The commands started from this page and from earlier ones here, the latest first."""
    for process in _children[:]:  # what has ended is taken from the table of processes
        if process.poll() is not None:
            _children.remove(process)
    folders = sorted((place.outputs / STARTED).glob(f"*/{COMMAND}"), reverse=True)
    return [started for file in folders if (started := _read(file)) is not None]


def stop(started: Started) -> None:
    """Ask a command to save and end, as Ctrl-C does."""
    if started.running:
        with suppress(ProcessLookupError):
            os.kill(started.pid, signal.SIGINT)


def tail(file: Path, size: int = TAIL) -> str:
    """The last bytes of a text file, from the beginning of a line; empty where there is none."""
    try:
        with file.open("rb") as stream:
            length = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, length - size))
            text = stream.read().decode(errors="replace")
    except OSError:
        return ""
    return masked_text(text.partition("\n")[2] if length > size else text)


_children: list["subprocess.Popen[bytes]"] = []  # to be reaped


def _read(file: Path) -> Started | None:
    try:
        record: Mapping[str, object] = json.loads(file.read_text(encoding="utf8"))
        words, pid, identity = record["words"], record["pid"], record["pid_started"]
        if not isinstance(words, list) or not isinstance(pid, int):
            return None
        return Started(
            file.parent,
            [*map(str, words)],
            pid,
            None if identity is None else str(identity),
            str(record["time"]),
        )
    except (OSError, ValueError, KeyError, TypeError):  # being written, or not ours
        return None
