"""The dialogue in the terminal: a line in, an answer out as it grows; lines that begin with / are commands."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

from rich.console import Console

from llmf_hydra.config.schema import Config
from llmf_hydra.data.rows import BadRow
from llmf_hydra.errors import LlmfError
from llmf_hydra.serve.calls import before_calls, calls_in
from llmf_hydra.serve.engine import Answer, Decoding, Engine, Finish, Request, Token
from llmf_hydra.serve.terminal.commands import COMMANDS, Ended, Wrong
from llmf_hydra.serve.terminal.dialogue import Dialogue


class Chat:
    """One user who talks to one model."""

    def __init__(self, cfg: Config, engine: Engine, out: Path):
        self._engine, self._decoding = engine, Decoding.of(cfg.generation)
        self._dialogue = Dialogue(out)
        self._asks = sys.stdin is not None and sys.stdin.isatty()  # it is None where the shell has closed it
        self._answers = Console(highlight=False, soft_wrap=True)
        self._notes = Console(stderr=True, highlight=False, soft_wrap=True)

    def run(self) -> None:
        """Until the user ends it, or standard input does."""
        self._note(f"{self._engine.loaded.name}: /help lists the commands, Ctrl-D ends the chat")
        for line in self._lines():
            try:
                self._take(line)
            except Ended:
                return
            except (Wrong, BadRow, LlmfError) as error:
                self._note(_sentence(error))
            except KeyboardInterrupt:  # before the answer began
                self._dialogue.unsay()
                self._note("stopped")

    def _lines(self) -> Iterator[str]:
        """What is typed, or comes through a pipe; empty lines apart."""
        if self._asks:
            import readline  # noqa: F401  # gives input() its history and editing keys
        while True:
            try:
                line = input(self._prompt()) if self._asks else _read()
            except EOFError:
                if self._asks:
                    self._answers.print()
                return
            except KeyboardInterrupt:
                self._answers.print()
                self._note("/exit or Ctrl-D ends the chat")
                continue
            if line.strip():
                yield line.strip()

    def _prompt(self) -> str:
        waiting = self._dialogue.waiting
        return f"result of {waiting[0].name}> " if waiting else "> "

    def _take(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word.startswith("/"):
            if word not in COMMANDS:
                raise Wrong(f"{word}: no such command; /help lists them")
            note = COMMANDS[word].run(self._dialogue, rest.strip())
            if note:
                self._note(note)
            if word == "/retry":
                self._answer()
            return
        self._dialogue.say(line)
        if not self._dialogue.waiting:
            self._answer()

    def _answer(self) -> None:
        """Write the next answer; Ctrl-C stops it, and what is there of it counts."""
        dialogue = self._dialogue
        try:
            prompt = self._engine.prompt(dialogue.messages, dialogue.tools)
            stream = self._engine.stream(Request(prompt, self._decoding))
        except (BadRow, LlmfError):
            dialogue.unsay()
            raise
        text: list[str] = []
        tokens: list[Token] = []
        finish = Finish.CANCELLED
        with _remembered_ctrl_c() as stopped:
            for piece in stream:
                self._answers.out(_shown(piece.text), end="", highlight=False)
                sys.stdout.flush()
                text.append(piece.text)
                tokens += piece.tokens
                finish = piece.finish or finish
                if stopped.is_set() and piece.finish is None:
                    finish = Finish.CANCELLED
                    stream.close()
                    break
        self._answers.print()
        answer = Answer("".join(text), tuple(tokens), finish)
        calls = calls_in(answer, self._engine.loaded, dialogue.tools) if dialogue.tools else []
        said = before_calls(answer.text, answer.ids, self._engine.loaded) if calls else answer.text
        dialogue.answered(said, calls)
        if finish is Finish.CANCELLED:
            self._note("stopped")
        elif finish is Finish.LENGTH:
            self._note(f"stopped after {len(tokens)} tokens (generation.max_new_tokens)")
        for call in calls:
            self._note(f"calls {call.name}({call.arguments}): type its result")

    def _note(self, text: str) -> None:
        """A word of the program, apart from the answers."""
        self._notes.print(text, style="dim", markup=False)


def chat(cfg: Config, engine: Engine, out: Path) -> None:
    """Talk until the user ends it; files with bare names are saved in `out`."""
    Chat(cfg, engine, out).run()


def _read() -> str:
    line = sys.stdin.readline() if sys.stdin is not None else ""
    if not line:
        raise EOFError
    return line


def _shown(text: str) -> str:
    """Text without the signs by which it could steer the terminal."""
    return "".join(sign for sign in text if sign.isprintable() or sign in "\n\t")


def _sentence(error: Exception) -> str:
    if isinstance(error, BadRow):
        return f"{error.field or 'the dialogue'} {error.what}" + (f"; {error.remedy}" if error.remedy else "")
    return str(error)


@contextmanager
def _remembered_ctrl_c() -> Iterator[Event]:
    """Within, Ctrl-C is an event: as an exception it could come wherever Python drops one."""
    stopped = Event()
    before = signal.signal(signal.SIGINT, lambda number, frame: stopped.set())
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGINT, before)
