"""Calls of tools in an answer."""

import json
from dataclasses import dataclass

from llmf_hydra.data.chat.calls import parse_calls
from llmf_hydra.data.chat.index import call_format
from llmf_hydra.serve.engine import Answer, Tools
from llmf_hydra.serve.loading import Loaded


@dataclass(frozen=True)
class Call:
    """A call of a tool; the arguments are JSON text."""

    name: str
    arguments: str


def calls_in(answer: Answer, loaded: Loaded, tools: Tools) -> list[Call]:
    """The calls of the given tools in an answer; none where it makes none, or calls one that wasn't given."""
    chat = loaded.speech.chat if loaded.speech else None
    written = call_format(chat.call_format, chat.text) if chat is not None else None
    if written is None:
        return []
    raw = str(
        loaded.tokenizer.decode(answer.ids, skip_special_tokens=False)
    )  # some mark calls by special tokens
    found = parse_calls(raw, written, tools) or parse_calls(answer.text, written, tools) or []
    known = {tool["function"]["name"] for tool in tools}
    if any(call["name"] not in known for call in found):
        return []
    return [Call(call["name"], json.dumps(call["arguments"], ensure_ascii=False)) for call in found]
