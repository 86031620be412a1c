"""sharegpt: a list of {from, value}; with observations, function calls, tools, and ranked last answers."""

from collections.abc import Mapping

from llmf_hydra.data.formats.common import calls_of, dialogue
from llmf_hydra.data.formats.turns import ROLES, read_turns
from llmf_hydra.data.rows import Message, Row, need_answer, need_text
from llmf_hydra.data.sources.dataset_info import Source


def convert(raw: Mapping[str, object], source: Source) -> Row:
    """One row. Raises BadRow."""
    return dialogue(raw, source, read_messages)


def read_messages(value: object, source: Source, column: str) -> list[Message]:
    """The list of messages of a column, with roles and keys by the source's tags."""
    return read_turns(value, source, column, _message)


def _message(message: Mapping[str, object], tag: str, field: str, tags: Mapping[str, str]) -> Message:
    role, key = ROLES[tag], tags["content_tag"]
    value, where = message.get(key), f"{field}.{key}"
    if tag == "function_tag":
        return {"role": role, "content": "", "tool_calls": calls_of(value, where)}
    return {"role": role, "content": (need_answer if role == "assistant" else need_text)(value, where)}
