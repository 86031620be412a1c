"""A list of messages, each with a role and a content, whose names the source's tags tell."""

from collections.abc import Callable, Mapping
from typing import Any

from llmf_hydra.data.rows import BadRow, Message, type_name
from llmf_hydra.data.sources.dataset_info import Source
from llmf_hydra.errors import did_you_mean

ROLES = {
    "user_tag": "user",
    "assistant_tag": "assistant",
    "function_tag": "assistant",
    "observation_tag": "tool",
    "system_tag": "system",
}
Content = Callable[[Mapping[str, Any], str, str, Mapping[str, str]], Message]
"""From a message, the tag of its role, its field and the tags, to the canonical message. Raises BadRow."""


def read_turns(
    value: object, source: Source, column: str, content: Content, also: Mapping[str, str] | None = None
) -> list[Message]:
    """The messages of a column; `also` names tags that further roles stand for. Raises BadRow."""
    tags = source.tags
    shape = f"{{{tags['role_tag']}, {tags['content_tag']}}}"
    if value is None:
        raise BadRow(column, "is missing", "name the column of the dialogue: columns {messages: ...}")
    if not isinstance(value, list) or not value:
        raise BadRow(column, "is not a list of messages" if value else "is empty", f"write [{shape}, ...]")
    known = {tags[tag]: tag for tag in ROLES} | dict(also or {})
    messages: list[Message] = []
    for number, message in enumerate(value):
        field = f"{column}[{number}]"
        if not isinstance(message, Mapping):
            raise BadRow(field, "is not a mapping", f"write {shape}")
        tag = _tag(message, tags["role_tag"], known, field)
        messages.append(content(message, tag, field, tags))
    return messages


def _tag(message: Mapping[str, object], key: str, known: Mapping[str, str], field: str) -> str:
    name = message.get(key)
    if name is None:
        raise BadRow(f"{field}.{key}", "is missing", "name the key of the role: tags {role_tag: ...}")
    if not isinstance(name, str):
        raise BadRow(f"{field}.{key}", f"is {type_name(name)}, not text", "write the role as a string")
    if name not in known:
        remedy = did_you_mean(str(name), known) or f"known are {', '.join(known)}"
        raise BadRow(f"{field}.{key}", f"is the unknown role {name!r}", remedy)
    return known[name]
