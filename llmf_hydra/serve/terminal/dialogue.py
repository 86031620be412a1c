"""The state of a chat: its messages, its tools, and the calls that wait for their result."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from llmf_hydra.data.formats.common import calls_of, tools_of
from llmf_hydra.data.rows import Message
from llmf_hydra.serve.calls import Call
from llmf_hydra.serve.engine import Tools


@dataclass
class Dialogue:
    """What was said so far."""

    folder: Path  # of files that are named without one
    system: str | None = None
    turns: list[Message] = field(default_factory=list)
    tools: Tools | None = None
    waiting: list[Call] = field(default_factory=list)  # calls whose result the user types next

    @property
    def messages(self) -> list[Message]:
        """All messages, the system message first."""
        head: list[Message] = [{"role": "system", "content": self.system}] if self.system else []
        return [*head, *self.turns]

    def say(self, text: str) -> None:
        """Add what the user typed: a message, or the result of the call that waits."""
        if self.waiting:
            self.turns.append({"role": "tool", "name": self.waiting.pop(0).name, "content": text})
        else:
            self.turns.append({"role": "user", "content": text})

    def unsay(self) -> None:
        """Take back what was said last and could not be answered."""
        while self.turns and self.turns.pop()["role"] == "tool":
            pass

    def answered(self, text: str, calls: Sequence[Call]) -> None:
        """Add an answer of the model: what it said apart from its calls, and these."""
        message: Message = {"role": "assistant", "content": text}
        if calls:
            given = [{"name": call.name, "arguments": json.loads(call.arguments)} for call in calls]
            message["tool_calls"] = calls_of(given, "tool_calls")
        self.turns.append(message)
        self.waiting = list(calls)

    def forget_answer(self) -> bool:
        """Take back the last answer, to have another one; whether there was one."""
        if not self.turns or self.turns[-1]["role"] != "assistant":
            return False
        self.turns.pop()
        self.waiting = []
        return bool(self.turns)

    def clear(self) -> None:
        """Forget all but the system message and the tools."""
        self.turns, self.waiting = [], []

    def read_tools(self, file: Path) -> None:
        """Take the tools of a JSON file. Raises OSError, ValueError and BadRow."""
        self.tools = tools_of(json.loads(file.read_text(encoding="utf8")), str(file))

    def as_row(self) -> str:
        """The dialogue as a line of JSON that trains (format openai)."""
        row: dict[str, object] = {"messages": self.messages}
        if self.tools:
            row["tools"] = self.tools
        return json.dumps(row, ensure_ascii=False) + "\n"
