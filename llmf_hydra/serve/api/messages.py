"""From the messages and tools of a request to those of the engine, and calls of tools back."""

import secrets
from collections.abc import Sequence
from typing import Any

from llmf_hydra.data.formats.common import calls_of, tools_of
from llmf_hydra.data.rows import Message
from llmf_hydra.serve.api.errors import ApiError
from llmf_hydra.serve.api.protocol import ChatMessage, Part, Tool
from llmf_hydra.serve.calls import Call
from llmf_hydra.serve.engine import Tools


def read_messages(given: Sequence[ChatMessage]) -> list[Message]:
    """The messages as chat templates read them. Raises ApiError for parts that no model here can read, and BadRow."""
    return [_message(message, f"messages.{at}") for at, message in enumerate(given)]


def _message(given: ChatMessage, field: str) -> Message:
    role = "system" if given.role == "developer" else given.role
    message: Message = {"role": role, "content": _content(given.content, field)}
    if given.tool_calls:
        made = [{"id": call.id, "function": {"name": call.function.name, "arguments": call.function.arguments or "{}"}}
                for call in given.tool_calls]  # fmt: skip
        message["tool_calls"] = calls_of(made, f"{field}.tool_calls")
    elif given.content is None:
        raise ApiError(400, f"{field}.content is missing", param=f"{field}.content")
    if given.name is not None:
        message["name"] = given.name
    if given.tool_call_id is not None:
        message["tool_call_id"] = given.tool_call_id
    return message


def _content(content: str | list[Part] | None, field: str) -> str:
    if not isinstance(content, list):
        return content or ""
    for at, part in enumerate(content):
        if part.type != "text" or part.text is None:
            what = f"{field}.content.{at} is of type {part.type}, and the model reads text alone"
            raise ApiError(400, f"{what}: nothing is fetched or opened for it", param=f"{field}.content.{at}")
    return "".join(part.text or "" for part in content)


def read_tools(given: Sequence[Tool] | None) -> Tools | None:
    """The tools as chat templates read them."""
    return tools_of([tool.model_dump(exclude_none=True) for tool in given], "tools") if given else None


def written_calls(calls: Sequence[Call]) -> list[dict[str, Any]]:
    """Calls of tools as OpenAI's protocol has them."""
    return [
        {
            "id": f"call_{secrets.token_hex(12)}",
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for call in calls
    ]
