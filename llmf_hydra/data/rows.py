"""The canonical row: whatever came in, this is what the rest of the engine sees. Standard library only."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Message = dict[str, Any]
"""`role` (system, user, assistant, tool) and `content`; an assistant may have `tool_calls`,
`reasoning_content` and `weight` (0: not trained), a tool `name` and `tool_call_id`. The shape that chat
templates read."""

_NO_CHARACTER = re.compile("[\ufdd0-\ufdd5\ud800-\udfff]")  # and half a surrogate pair, which JSON can write
MEDIA = ("images", "videos", "audios")
PLACEHOLDERS = {"images": "<image>", "videos": "<video>", "audios": "<audio>"}


class BadRow(Exception):
    """A row that cannot be used: which field, what is wrong with it and what to do.

    The reader adds file and row.
    """

    def __init__(self, field: str, what: str, remedy: str = ""):
        super().__init__(field, what, remedy)
        self.field, self.what, self.remedy = field, what, remedy


@dataclass(slots=True)
class Row:
    """One row. A plain text has only `text`; a prompt has no answers, a dialogue one, a ranked row two."""

    prompt: list[Message] = field(default_factory=list)
    answers: list[list[Message]] = field(default_factory=list)  # for a ranked row: chosen, rejected
    label: bool | None = None
    text: str | None = None
    tools: list[dict[str, object]] | None = None
    media: dict[str, list[str]] | None = None  # images, videos, audios: absolute paths
    columns: Mapping[str, object] | None = None  # of a prompt: the row as its file holds it, for rewards
    blank: str | None = None  # the column of an answer without text: the row is a prompt

    @property
    def reference(self) -> str | None:
        """The text of the answer that the row brings, or of the better of two; None without one."""
        return str(self.answers[0][-1]["content"]) if self.answers else None

    def kinds(self) -> set[str]:
        """The kinds of training that this row can serve."""
        if self.text is not None:
            return {"text"}
        found = {"prompt"} if self.prompt else set()
        if len(self.answers) == 2:
            return found | {"preference"}
        if len(self.answers) == 1:
            found |= {"feedback"} if self.label is not None else {"dialogue"}
        return found


def check_turns(messages: Sequence[Message], field: str) -> None:
    """An optional system message first; then user (or tool) and assistant in turn. Raises BadRow."""
    turns = messages[1:] if messages and messages[0]["role"] == "system" else messages
    if not turns:
        raise BadRow(field, "has no messages", "give at least one user message")
    expected = ("user", "tool")
    for number, message in enumerate(turns, len(messages) - len(turns) + 1):
        role = message["role"]
        if role == "tool" and "tool" in expected and number > 1:
            expected = ("assistant", "tool")  # several results may follow one message with several calls
            continue
        if role not in expected:
            wanted = "assistant" if "assistant" in expected else "user"
            raise BadRow(
                field,
                f"has the role {role} in turn {number}, where {wanted} is expected",
                _order_remedy(role),
            )
        expected = ("user", "tool") if role == "assistant" else ("assistant",)


def _order_remedy(role: str) -> str:
    if role == "system":
        return "put the one system message first"
    return "let user and assistant take turns: join neighbours of one role, or remove one"


def check_characters(row: Row) -> None:
    """No text may hold what is no character: noncharacters mark places while it is written. Raises BadRow."""
    messages = [*row.prompt, *(message for answer in row.answers for message in answer)]
    for text in _texts([row.text or "", messages, row.tools]):
        if found := _NO_CHARACTER.search(text):
            what = f"holds the character U+{ord(found[0]):04X}, which is no character of any text"
            raise BadRow("", what, "remove it")


def _texts(value: object) -> Iterator[str]:
    """All texts within lists and mappings, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _texts(key)
            yield from _texts(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _texts(part)


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or its name."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def need_text(value: object, field: str) -> str:
    """The value as text; BadRow if it is missing or of another type."""
    if value is None:
        raise BadRow(field, "is missing", "fill it in, or name the right column in dataset_info.json")
    if not isinstance(value, str):
        raise BadRow(field, f"is {type_name(value)}, not text", "write it as a string")
    return value


def need_answer(value: object, field: str) -> str:
    """The text of an answer; BadRow if it is missing or empty."""
    text = need_text(value, field)
    if not text.strip():
        raise empty_answer(field)
    return text


def empty_answer(field: str) -> BadRow:
    """What is wrong with an answer without text that is to be learned."""
    return BadRow(field, "is empty", "an answer to be learned needs text")


def is_blank(value: object) -> bool:
    """Whether a cell holds text, and that text nothing."""
    return isinstance(value, str) and not value.strip()


def type_name(value: object) -> str:
    """What a value is, in words of JSON."""
    names = {
        dict: "a mapping",
        list: "a list",
        int: "a number",
        float: "a number",
        bool: "true or false",
        str: "text",
        type(None): "null",
    }
    return names.get(type(value), f"a {type(value).__name__}")
