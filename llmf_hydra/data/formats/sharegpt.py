"""sharegpt: a list of {from, value}; with observations, function calls, tools, and ranked last answers."""

from collections.abc import Mapping
from typing import Any

from llmf_hydra.data.formats.shared import calls_of, dialogue
from llmf_hydra.data.rows import BadRow, Message, Row, need_answer, need_text
from llmf_hydra.data.table import Source
from llmf_hydra.errors import did_you_mean

_ROLES = {
    "user_tag": "user",
    "assistant_tag": "assistant",
    "function_tag": "assistant",
    "observation_tag": "tool",
    "system_tag": "system",
}


def convert(raw: Mapping[str, Any], source: Source) -> Row:
    """One row. Raises BadRow."""
    return dialogue(raw, source, read_messages)


def read_messages(value: Any, source: Source, column: str) -> list[Message]:
    """The list of messages of a column, with roles and keys by the source's tags."""
    if value is None:
        raise BadRow(column, "is missing", "name the column of the dialogue: columns {messages: ...}")
    if not isinstance(value, list) or not value:
        raise BadRow(
            column, "is not a list of messages" if value else "is empty", "write [{from, value}, ...]"
        )
    roles = {source.tags[tag]: (tag, role) for tag, role in _ROLES.items()}
    return [_message(m, source.tags, roles, f"{column}[{i}]") for i, m in enumerate(value)]


def _message(
    message: Any, tags: Mapping[str, str], roles: Mapping[str, tuple[str, str]], field: str
) -> Message:
    if not isinstance(message, Mapping):
        raise BadRow(field, "is not a mapping", f"write {{{tags['role_tag']}, {tags['content_tag']}}}")
    name = message.get(tags["role_tag"])
    if name is None:
        raise BadRow(
            f"{field}.{tags['role_tag']}", "is missing", "name the key of the role: tags {role_tag: ...}"
        )
    if name not in roles:
        remedy = did_you_mean(str(name), roles) or f"known are {', '.join(roles)}"
        raise BadRow(f"{field}.{tags['role_tag']}", f"is the unknown role {name!r}", remedy)
    tag, role = roles[name]
    return _content(message.get(tags["content_tag"]), tag, role, f"{field}.{tags['content_tag']}")


def _content(value: Any, tag: str, role: str, field: str) -> Message:
    if tag == "function_tag":
        return {"role": role, "content": "", "tool_calls": calls_of(value, field)}
    if tag == "assistant_tag":
        return {"role": role, "content": need_answer(value, field)}
    return {"role": role, "content": need_text(value, field)}
