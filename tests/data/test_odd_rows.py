# ruff: noqa: E501 (a case a line reads better as a table)
"""Rows that nobody foresees: each is read or is a bad row with its place, and never a traceback."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.data_samples import described, run

from llmf_hydra.config.groups.data import DataConfig
from llmf_hydra.data.sources.resolve import check_sources
from llmf_hydra.errors import Refused

ASK, SAY = {"role": "user", "content": "hello"}, {"role": "assistant", "content": "good"}
GOOD = {"messages": [ASK, SAY]}
HALF = "\ud83d"


def call(arguments: Any, name: Any = "f", **more: Any) -> dict[str, Any]:
    calls = [{"id": "a", "function": {"name": name, "arguments": arguments}, **more}]
    return {"messages": [ASK, {"role": "assistant", "content": None, "tool_calls": calls}]}


def tools(*given: Any) -> dict[str, Any]:
    return {**GOOD, "tools": list(given)}


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


BAD: dict[str, Any] = {  # each as a row of messages
    "half a surrogate in arguments": call({"x": HALF}),
    "half a surrogate in a key of arguments": call({HALF: 1}),
    "half a surrogate in arguments as JSON": call(json.dumps({"x": HALF})),
    "half a surrogate in a tool": tools({"name": "f", "description": HALF}),
    "half a surrogate in a thought": {"messages": [ASK, {**SAY, "reasoning_content": HALF}]},
    "half a surrogate in the name of a call": call({}, HALF),
    "a role that is a list": {"messages": [{"role": ["user"], "content": "a"}, SAY]},
    "a role that is a mapping": {"messages": [{"role": {}, "content": "a"}, SAY]},
    "a role that is a number": {"messages": [{"role": 1, "content": "a"}, SAY]},
    "a role that is true": {"messages": [{"role": True, "content": "a"}, SAY]},
    "messages that are text": {"messages": "hello"},
    "messages that are a mapping": {"messages": ASK},
    "messages within messages": {"messages": [[ASK], [SAY]]},
    "a message that is null": {"messages": [None, SAY]},
    "a content that is a number": {"messages": [{"role": "user", "content": 1}, SAY]},
    "a content of parts without text": {"messages": [{"role": "user", "content": [{"type": "text"}]}, SAY]},
    "a content of lists": {"messages": [{"role": "user", "content": [["a"]]}, SAY]},
    "tools that are a number": {**GOOD, "tools": 3},
    "tools that are a list of lists": tools([]),
    "a tool that is null": tools(None),
    "a tool whose function is text": tools({"type": "function", "function": "f"}),
    "a tool with the name of a list": tools({"name": ["f"]}),
    "parameters that are text": tools({"name": "f", "parameters": "none"}),
    "properties that are a list": tools({"name": "f", "parameters": {"properties": ["x"]}}),
    "a property that is text": tools({"name": "f", "parameters": {"properties": {"x": "string"}}}),
    "properties that are null": tools({"name": "f", "parameters": {"properties": None}}),
    "tools with a long number as JSON": {**GOOD, "tools": '[{"name": "f", "x": ' + "9" * 5000 + "}]"},
    "tools nested deeply as JSON": {**GOOD, "tools": "[" * 5000 + "]" * 5000},
    "calls that are a number": {"messages": [ASK, {"role": "assistant", "tool_calls": 5}]},
    "calls that are text": {"messages": [ASK, {"role": "assistant", "tool_calls": "f(1)"}]},
    "a call without a function": {"messages": [ASK, {"role": "assistant", "tool_calls": [{"id": "a"}]}]},
    "arguments with a long number": call('{"x": ' + "9" * 5000 + "}"),
    "arguments nested deeply": call(nested(900)),
    "a weight that is text": {"messages": [ASK, {**SAY, "weight": HALF}]},
    "a system message that is a list": {"messages": [{"role": "system", "content": None}, ASK, SAY]},
    "a label that is a list": {**GOOD, "label": []},
    "a noncharacter in a tool": tools({"name": "f", "description": "\ufdd0"}),
}  # fmt: skip
SOMETIMES_READ = {"parameters that are text", "properties that are a list", "a property that is text",
                  "properties that are null", "arguments nested deeply", "a weight that is text"}  # fmt: skip
"""Odd, and for a template that only writes them out no fault."""
TEMPLATES = (None, "qwen", "llama3", "mistral", "glm4")


def test_an_odd_row_is_read_or_is_a_bad_row_with_its_place(tokenizer: Any, tmp_path: Path) -> None:
    """In whatever template; the rows beside it are never lost."""
    wrong: list[str] = []
    rows = [GOOD, *BAD.values(), GOOD]
    table = described(tmp_path, rows, {"formatting": "openai"})
    for template in TEMPLATES:
        made = run(
            tokenizer, "rows", dataset_dir=table, template=template, skip_bad_rows=True, overwrite_cache=True
        )
        numbers = {row["row"] for row in made.train}
        bad = {json.loads(line)["row"] for path in made.rejected for line in path.read_text().splitlines()}
        assert numbers | bad == set(range(1, len(rows) + 1))
        assert {1, len(rows)} <= numbers
        read = [name for number, name in enumerate(BAD, 2) if number in numbers]
        wrong += [f"{template}: {name}" for name in read if name not in SOMETIMES_READ]
    assert wrong == []


def test_the_first_odd_rows_are_named_before_the_start(tokenizer: Any, tmp_path: Path) -> None:
    table = described(tmp_path, [GOOD, *BAD.values()], {"formatting": "openai"})
    told = "\n".join(map(str, check_sources(DataConfig(dataset="rows", dataset_dir=table), "dialogue")))
    assert f"{tmp_path}/rows.jsonl row 2: holds the character U+D83D" in told
    with pytest.raises(Refused, match="row 2: holds the character"):
        run(tokenizer, "rows", dataset_dir=table)


LINES = {
    "a number of 5,000 digits": ('{"instruction": "a", "output": "b", "n": ' + "9" * 5000 + "}", "row 2: holds a number of 5000 digits; write it as a string"),
    "a row nested deeply": ('{"instruction": "a", "output": "b", "n": ' + "[" * 100_000 + "]" * 100_000 + "}", "row 2: is nested too deeply"),
}  # fmt: skip


@pytest.mark.parametrize("name", LINES)
def test_a_row_that_python_cannot_read(name: str, tokenizer: Any, tmp_path: Path) -> None:
    line, reason = LINES[name]
    good = '{"instruction": "hello", "output": "good"}'
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join([good, line, good]))
    assert reason in str(check_sources(DataConfig(dataset=str(path)), "dialogue")[0])
    for streaming in (False, True):
        made = run(tokenizer, str(path), skip_bad_rows=True, streaming=streaming, buffer_size=1)
        assert [row["row"] for row in made.train] == [1, 3]
    array = tmp_path / "rows.json"
    array.write_text(f"[{good}, {line}, {good}]")
    told = str(check_sources(DataConfig(dataset=str(array)), "dialogue")[0])
    assert reason in told or "is nested too deeply after row 1" in told
