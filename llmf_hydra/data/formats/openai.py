"""openai: a list of {role, content} with tool_calls and tool results; also ranked, and labelled."""

from collections.abc import Mapping
from typing import Any

from llmf_hydra.data.formats.shared import calls_of, dialogue
from llmf_hydra.data.rows import BadRow, Message, Row, need_answer, need_text
from llmf_hydra.data.table import Source
from llmf_hydra.errors import did_you_mean

_ALSO = {"developer": "system", "function": "tool"}  # older and newer names of the roles
_KEPT = ("name", "tool_call_id", "reasoning_content", "weight")


def convert(raw: Mapping[str, Any], source: Source) -> Row:
    """One row. Raises BadRow."""
    return dialogue(raw, source, read_messages)


def read_messages(value: Any, source: Source, column: str) -> list[Message]:
    """The list of messages of a column, with roles and keys by the source's tags."""
    if value is None:
        raise BadRow(column, "is missing", "name the column of the dialogue: columns {messages: ...}")
    if not isinstance(value, list) or not value:
        raise BadRow(
            column, "is not a list of messages" if value else "is empty", "write [{role, content}, ...]"
        )
    tags = source.tags
    roles = {
        tags["user_tag"]: "user",
        tags["assistant_tag"]: "assistant",
        tags["function_tag"]: "assistant",
        tags["observation_tag"]: "tool",
        tags["system_tag"]: "system",
        **_ALSO,
    }
    return [_message(message, tags, roles, f"{column}[{i}]") for i, message in enumerate(value)]


def _message(message: Any, tags: Mapping[str, str], roles: Mapping[str, str], field: str) -> Message:
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
    where = f"{field}.{tags['content_tag']}"
    content = _text(message.get(tags["content_tag"]), where)
    made: Message = {"role": roles[name], "content": content}
    made |= {key: message[key] for key in _KEPT if message.get(key) is not None}
    if message.get("tool_calls"):
        made["content"] = content or ""
        made["tool_calls"] = calls_of(message["tool_calls"], f"{field}.tool_calls")
    elif name == tags["function_tag"]:
        made |= {"content": "", "tool_calls": calls_of(content, where)}
    elif made["role"] == "assistant":
        need_answer(content, where)
    else:
        need_text(content, where)
    return made


def _text(content: Any, field: str) -> Any:
    """The text of a content that may come in parts; other parts than text are named by their columns."""
    if not isinstance(content, list):
        return content
    texts: list[str] = []
    for part in content:
        if not isinstance(part, Mapping) or part.get("type") != "text":
            kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
            remedy = "write <image> in the text and the file in the column images"
            raise BadRow(field, f"holds a part of type {kind}", remedy)
        texts.append(need_text(part.get("text"), field))
    return "".join(texts)
