"""The canonical row written in the formats that others read. The way back of formats/."""

import json
from collections.abc import Callable, Sequence

from llmf_hydra.data.rows import Message, Row
from llmf_hydra.errors import NO_VALUE, Problem, Refused

_SHAREGPT = {"system": "system", "user": "human", "assistant": "gpt", "tool": "observation"}


def openai(row: Row) -> dict[str, object]:
    """{messages, tools, chosen, rejected, label}, as formatting openai reads it."""
    made = _dialogue(row, "messages", lambda message: dict(message))
    if row.label is not None:
        made["label"] = row.label
    return made


def sharegpt(row: Row) -> dict[str, object]:
    """{conversations, tools, chosen, rejected, kto_tag}, as formatting sharegpt reads it."""
    made = _dialogue(row, "conversations", _turn)
    if row.label is not None:
        made["kto_tag"] = row.label
    return made


def alpaca(row: Row) -> dict[str, object]:
    """{instruction, output, system, history, chosen, rejected}.

    Raises Refused where the row is more than that.
    """
    _refuse(row.text is not None, "is plain text")
    everything = [*row.prompt, *(message for answer in row.answers for message in answer)]
    _refuse(row.tools or any(m["role"] == "tool" or "tool_calls" in m for m in everything), "uses tools")
    _refuse(any(len(answer) > 1 for answer in row.answers), "is ranked by more than one turn")
    system = row.prompt[0]["content"] if row.prompt[0]["role"] == "system" else ""
    turns = [message["content"] for message in row.prompt if message["role"] != "system"]
    made: dict[str, object] = {"instruction": turns[-1], "input": ""}
    made |= _answers(row)
    if system:
        made["system"] = system
    if len(turns) > 1:
        made["history"] = [list(pair) for pair in zip(turns[:-1:2], turns[1::2], strict=True)]
    if row.label is not None:
        made["kto_tag"] = row.label
    return made


def _answers(row: Row) -> dict[str, str]:
    texts = [answer[0]["content"] for answer in row.answers]
    names = ("chosen", "rejected") if len(texts) == 2 else ("output",)
    return dict(zip(names, texts, strict=False))


def _dialogue(row: Row, column: str, write: Callable[[Message], dict[str, object]]) -> dict[str, object]:
    _refuse(row.text is not None, "is plain text")

    def written(messages: Sequence[Message]) -> list[dict[str, object]]:
        return [write(message) for message in messages]

    ranked = len(row.answers) == 2
    made: dict[str, object] = {
        column: written([*row.prompt, *(row.answers[0] if len(row.answers) == 1 else ())])
    }
    if ranked:
        made |= {"chosen": written(row.answers[0]), "rejected": written(row.answers[1])}
    if row.tools:
        made["tools"] = json.dumps(row.tools, ensure_ascii=False)
    return made


def _turn(message: Message) -> dict[str, object]:
    calls = message.get("tool_calls")
    if calls:
        _refuse(bool(message["content"]), "says something beside a call of a tool")
        return {
            "from": "function_call",
            "value": json.dumps([c["function"] for c in calls], ensure_ascii=False),
        }
    return {"from": _SHAREGPT[message["role"]], "value": message["content"]}


def _refuse(condition: object, what: str) -> None:
    if condition:
        raise Refused([Problem("--to", NO_VALUE, f"a row {what}, which this format cannot hold")])


WRITERS: dict[str, Callable[[Row], dict[str, object]]] = {
    "alpaca": alpaca,
    "openai": openai,
    "sharegpt": sharegpt,
}
