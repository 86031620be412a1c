"""openai: a list of {role, content} with tool_calls and tool results; also ranked, and labelled."""

from collections.abc import Mapping

from llmf_hydra.data.formats.common import calls_of, dialogue
from llmf_hydra.data.formats.turns import ROLES, read_turns
from llmf_hydra.data.rows import BadRow, Message, Row, need_answer, need_text
from llmf_hydra.data.sources.dataset_info import Source

_ALSO = {"developer": "system_tag", "function": "observation_tag"}  # older and newer names of the roles
_KEPT = ("name", "tool_call_id", "reasoning_content", "weight")


def convert(raw: Mapping[str, object], source: Source) -> Row:
    """One row. Raises BadRow."""
    return dialogue(raw, source, read_messages)


def read_messages(value: object, source: Source, column: str) -> list[Message]:
    """The list of messages of a column, with roles and keys by the source's tags."""
    return read_turns(value, source, column, _message, _ALSO)


def _message(message: Mapping[str, object], tag: str, field: str, tags: Mapping[str, str]) -> Message:
    role = ROLES[tag]
    where = f"{field}.{tags['content_tag']}"
    content = _text(message.get(tags["content_tag"]), where)
    made: Message = {"role": role, "content": content}
    made |= {key: message[key] for key in _KEPT if message.get(key) is not None}
    if message.get("tool_calls"):
        made["content"] = content or ""
        made["tool_calls"] = calls_of(message["tool_calls"], f"{field}.tool_calls")
    elif tag == "function_tag":
        made |= {"content": "", "tool_calls": calls_of(content, where)}
    elif made["role"] == "assistant":
        need_answer(content, where)
    else:
        need_text(content, where)
    return made


def _text(content: object, field: str) -> object:
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
