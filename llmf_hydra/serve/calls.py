"""Calls of tools in an answer, and what it says apart from them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from llmf_hydra.data.chat.calls import call_begins, parse_calls
from llmf_hydra.data.chat.index import call_format
from llmf_hydra.serve.engine import Answer, Tools
from llmf_hydra.serve.loading import Model


@dataclass(frozen=True)
class Call:
    """A call of a tool; the arguments are JSON text."""

    name: str
    arguments: str


def calls_in(answer: Answer, loaded: Model, tools: Tools) -> list[Call]:
    """The calls of the given tools in an answer; none where it makes none, or calls one that wasn't given."""
    written = _format(loaded)
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


def before_calls(text: str, ids: Sequence[int], loaded: Model) -> str:
    """What an answer, or the beginning of one, says before a call of a tool begins or may be beginning; `ids` are its
    tokens. It never shrinks as the answer grows."""
    written = _format(loaded)
    if written is None:
        return text
    special = frozenset(loaded.tokenizer.all_special_ids)
    marked = next((at for at, token in enumerate(ids) if token in special), None)
    end = call_begins(text, written)
    if marked is not None:  # some formats mark calls by special tokens, which the text doesn't show
        end = min(end, len(str(loaded.tokenizer.decode(list(ids[:marked])))))
    return text[:end].rstrip()


def _format(loaded: Model) -> str | None:
    """How calls stand in the model's answers; None: not known."""
    chat = loaded.speech.chat if loaded.speech else None
    return call_format(chat.call_format, chat.text) if chat is not None else None
