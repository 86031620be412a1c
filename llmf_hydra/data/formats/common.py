"""What several formats have in common: system, tools, labels, media and the calls of tools."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from llmf_hydra.data.rows import MEDIA, PLACEHOLDERS, BadRow, Message, Row, check_turns, need_text
from llmf_hydra.data.sources.dataset_info import Source


def cell(raw: Mapping[str, object], source: Source, name: str) -> object:
    """The value of a column by its canonical name.

    BadRow if dataset_info.json names it and the row lacks it.
    """
    column = source.column(name)
    if column is None:
        return None
    if column not in raw and name in source.given_columns:
        have = ", ".join(sorted(map(str, raw))) or "none"
        raise BadRow(column, f"is missing (columns.{name})", f"the row has {have}")
    return raw.get(column)


def finished(row: Row, raw: Mapping[str, object], source: Source, field: str) -> Row:
    """Add system, tools, label and media, and check the order of turns of the prompt and of each answer."""
    system = cell(raw, source, "system")
    if system:
        text = need_text(system, str(source.column("system")))
        if not row.prompt or row.prompt[0]["role"] != "system":
            row.prompt.insert(0, {"role": "system", "content": text})
    row.tools = tools_of(cell(raw, source, "tools"), str(source.column("tools")))
    row.label = label_of(cell(raw, source, "kto_tag"), str(source.column("kto_tag")))
    for answer in row.answers or [[]]:
        check_turns([*row.prompt, *answer], field)
        if answer and answer[-1]["role"] != "assistant":
            raise BadRow(field, f"ends with the role {answer[-1]['role']}", "end it with an answer")
    row.media = media_of(raw, source)
    if row.media:
        _check_placeholders(row, field)
    return row


def tools_of(value: object, field: str) -> list[dict[str, object]] | None:
    """The described tools: a list, or JSON text of one. Each as `{type: function, function: {...}}`."""
    if value is None or value == "" or value == []:
        return None
    if isinstance(value, str):
        value = _json(value, field, "is not valid JSON", "write a list of function descriptions")
    tools = value if isinstance(value, list) else [value]
    return [_tool(tool, field) for tool in tools] or None


def _json(text: str, field: str, what: str, remedy: str) -> object:
    """The value that JSON text within a row stands for. Raises BadRow."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise BadRow(field, f"{what}: {error.msg} at column {error.colno}", remedy) from None
    except (ValueError, RecursionError):  # a number of thousands of digits, or a thousand brackets
        raise BadRow(field, f"{what}: its numbers are too long, or it is nested too deeply", remedy) from None


def _tool(tool: object, field: str) -> dict[str, object]:
    function = tool.get("function", tool) if isinstance(tool, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise BadRow(field, "holds a tool without a name", "write {name, description, parameters}")
    return {"type": "function", "function": dict(function)}


def label_of(value: object, field: str) -> bool | None:
    """True for a wanted answer, False for an unwanted one."""
    if value is None or isinstance(value, bool):
        return value
    known = {"true": True, "false": False, "1": True, "0": False}
    found = known.get(str(value).strip().lower())
    if found is None:
        raise BadRow(field, f"is {value!r}, not true or false", "write true for a wanted answer, else false")
    return found


def calls_of(value: object, field: str) -> list[dict[str, object]]:
    """Calls of tools from JSON text, a mapping or a list, in the shape that chat templates read."""
    if isinstance(value, str):
        remedy = 'write {"name": ..., "arguments": {...}}'
        value = _json(value, field, "holds a call of a tool that is not valid JSON", remedy)
    calls = value if isinstance(value, list) else [value]
    return [_call(call, field) for call in calls]


def _call(call: Any, field: str) -> dict[str, object]:
    function = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise BadRow(
            field, "holds a call of a tool without a name", 'write {"name": ..., "arguments": {...}}'
        )
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        what = f"calls {function['name']} with arguments that are not valid JSON"
        arguments = _json(arguments, field, what, "write the arguments as a mapping")
    made: dict[str, object] = {
        "type": "function",
        "function": {"name": function["name"], "arguments": arguments},
    }
    return {"id": call["id"], **made} if call.get("id") else made


def media_of(raw: Mapping[str, object], source: Source) -> dict[str, list[str]] | None:
    """Paths of images, videos and sound, absolute under the media folder; BadRow if one does not exist."""
    found: dict[str, list[str]] = {}
    for kind in MEDIA:
        value = cell(raw, source, kind)
        if value:
            names = value if isinstance(value, list) else [value]
            found[kind] = [_medium(name, source, str(source.column(kind))) for name in names]
    return found or None


def _medium(name: object, source: Source, field: str) -> str:
    path = Path(need_text(name, field)).expanduser()
    path = path if path.is_absolute() or source.media_dir is None else source.media_dir / path
    if not path.is_file():
        raise BadRow(
            field, f"names {path}, which does not exist", "set data.media_dir to the folder of the files"
        )
    return str(path.absolute())


def _check_placeholders(row: Row, field: str) -> None:
    text = "".join(m["content"] for m in [*row.prompt, *(m for answer in row.answers for m in answer)])
    for kind, names in (row.media or {}).items():
        count = text.count(PLACEHOLDERS[kind])
        if count and count != len(names):
            what = f"has {count} {PLACEHOLDERS[kind]} for {len(names)} {kind}"
            raise BadRow(field, what, "write one placeholder for each file")


ReadMessages = Callable[[Any, Source, str], list[Message]]


def dialogue(raw: Mapping[str, object], source: Source, read: ReadMessages) -> Row:
    """The row of a format that keeps a dialogue in one column, and ranked last answers beside it."""
    column = str(source.column("messages"))
    messages = read(cell(raw, source, "messages"), source, column)
    if source.ranking or (cell(raw, source, "chosen") and cell(raw, source, "rejected")):
        answers = [_ranked(raw, source, name, read) for name in ("chosen", "rejected")]
        return finished(Row(prompt=messages, answers=answers), raw, source, column)
    return finished(split_answer(messages), raw, source, column)


def _ranked(raw: Mapping[str, object], source: Source, name: str, read: ReadMessages) -> list[Message]:
    column = source.column(name) or name
    value = cell(raw, source, name)
    if not value:
        raise BadRow(column, "is missing in a ranked row", "give chosen and rejected")
    return read(value if isinstance(value, list) else [value], source, column)


def split_answer(messages: list[Message]) -> Row:
    """A dialogue as prompt and answer; without an answer where it does not end with the assistant."""
    if messages and messages[-1]["role"] == "assistant":
        return Row(prompt=messages[:-1], answers=[[messages[-1]]])
    return Row(prompt=messages)
