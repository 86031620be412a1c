"""Tools for templates that have no place for them: described and called in the contents of messages."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from llmf_hydra.data.chat.index import tool_formats
from llmf_hydra.data.chat.jinja import compiled
from llmf_hydra.data.chat.template import Chat
from llmf_hydra.data.rows import BadRow, Message, first_line

Tools = list[dict[str, Any]]
DEFAULT_FORMAT = "default"


def for_template(
    chat: Chat, messages: Sequence[Message], tools: Tools | None
) -> tuple[list[Message], Tools | None]:
    """Messages and tools as the template takes them.

    What it has no place for is written into the contents.
    """
    if tools is None and all(len(m) == 2 and m["role"] != "tool" for m in messages):  # role and content alone
        return list(messages), None
    written = [
        _thought_placed(message, chat) if message.get("reasoning_content") else message
        for message in messages
    ]
    if chat.writes_tools and not chat.tool_format:
        return written, tools
    known = tool_formats()[chat.tool_format or DEFAULT_FORMAT]
    written = [_calls_in_content(message, known) for message in _results_joined(written, known, chat)]
    return (_tools_in_system(written, tools, known, chat.own_system) if tools else written), None


def _thought_placed(message: Message, chat: Chat) -> Message:
    """An answer with its thought under both names that templates read, or within its content."""
    thought = message["reasoning_content"]
    if chat.knows_thoughts:
        return {**message, "thinking": thought}
    rest = {key: value for key, value in message.items() if key != "reasoning_content"}
    return {**rest, "content": f"<think>\n{thought}\n</think>\n\n{message['content']}"}


def _tools_in_system(
    messages: list[Message], tools: Tools, known: dict[str, str], own_system: str | None
) -> list[Message]:
    if own_system and messages[0]["role"] != "system":
        messages = [{"role": "system", "content": own_system}, *messages]
    text = _text(known["tools"], "tools", tools=[tool["function"] for tool in tools])
    if messages and messages[0]["role"] == "system":
        system = messages[0]["content"]
        return [{**messages[0], "content": f"{system}\n\n{text}"}, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]


def _text(template: str, field: str, **given: object) -> str:
    """What a template of a tool format writes. Raises BadRow for what it can't: schemas hold anything."""
    try:
        return compiled(template).render(**given)
    except Exception as error:
        what = f"cannot be written as text: {type(error).__name__}: {first_line(error)}"
        remedy = "write {name, description, parameters}, with a JSON Schema of an object as the parameters"
        raise BadRow(field, what, remedy) from None


def _calls_in_content(message: Message, known: dict[str, str]) -> Message:
    calls = message.get("tool_calls")
    if not calls:
        return message
    text = _text(known["calls"], "tool_calls", calls=[call["function"] for call in calls])
    rest = {key: value for key, value in message.items() if key != "tool_calls"}
    return {**rest, "content": f"{message['content']}\n{text}" if message["content"] else text}


def _results_joined(messages: list[Message], known: dict[str, str], chat: Chat) -> list[Message]:
    """Results that follow one another as one message; the user says them where the template knows no tool."""
    role = "tool" if "tool" in chat.text and not chat.writes_tools else "user"
    joined: list[Message] = []
    for is_result, group in groupby(messages, lambda message: message["role"] == "tool"):
        if is_result:
            result = compiled(known["result"])
            texts = [result.render(content=message["content"]) for message in group]
            joined.append({"role": role, "content": "\n".join(texts)})
        else:
            joined += group
    return joined
