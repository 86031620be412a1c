# ruff: noqa: E501 (answers as they are)
"""Tools: described, called, and the model's call read back."""

import keyword
import re
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.data_samples import make_tokenizer

from llmf_hydra.config.groups.data import DataConfig
from llmf_hydra.config.groups.generation import GenerationConfig
from llmf_hydra.data.chat.calls import call_begins, parse_calls
from llmf_hydra.data.chat.index import index, template_names, tool_formats
from llmf_hydra.data.chat.render import render_dialogue
from llmf_hydra.data.chat.template import Chat, load_chat
from llmf_hydra.data.chat.tools import for_template
from llmf_hydra.data.rows import BadRow

FORMATS = sorted(tool_formats())
ADD = {
    "name": "add",
    "description": "adds two numbers",
    "parameters": {
        "type": "object",
        "properties": {"x": {"type": "integer", "description": "one"}, "y": {"type": "integer"}},
        "required": ["x"],
    },
}


def chat(name: str) -> Chat:
    return load_chat(DataConfig(tool_format=name), GenerationConfig(), make_tokenizer())


def call(name: str, arguments: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def written(name: str, calls: list[dict[str, Any]]) -> str:
    message = {
        "role": "assistant",
        "content": "",
        "tool_calls": [call(c["name"], c["arguments"]) for c in calls],
    }
    return for_template(chat(name), [message], None)[0][0]["content"]


CALLS = {
    "default": 'Action: add\nAction Input: {"x": 1}',
    "glm4": 'add\n{"x": 1}',
    "llama3": '{"name": "add", "parameters": {"x": 1}}',
    "ling": '<tool_call>\n{"name": "add", "arguments": {"x": 1}}\n</tool_call>',
    "mistral": '[TOOL_CALLS] [{"name": "add", "arguments": {"x": 1}}]',
    "qwen": '<tool_call>\n{"name": "add", "arguments": {"x": 1}}\n</tool_call>',
}


def test_the_formats_that_are_known() -> None:
    assert sorted(CALLS) == FORMATS


@pytest.mark.parametrize("name", FORMATS)
def test_a_call_is_written_and_read_back(name: str) -> None:
    assert written(name, [{"name": "add", "arguments": {"x": 1}}]) == CALLS[name]
    assert parse_calls(CALLS[name], name) == [{"name": "add", "arguments": {"x": 1}}]


QUESTION = {"role": "user", "content": "hello"}
READ = {entry["tool_format"]: name for name, entry in index().items()}  # a template that writes each format
WORDS = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "Zs")), max_size=8).map(str.strip)
NAMES = st.from_regex(r"[a-z]{1,5}", fullmatch=True).filter(lambda name: not keyword.iskeyword(name))
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), WORDS),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(NAMES, inner, max_size=2)),
    max_leaves=4,
)
SEVERAL = st.lists(
    st.fixed_dictionaries({"name": NAMES, "arguments": st.dictionaries(NAMES, JSON, max_size=3)}),
    min_size=1,
    max_size=3,
)


def declared(calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tools whose schemas say which arguments of the calls are strings."""
    kinds = {(c["name"], key): type(value) for c in calls for key, value in c["arguments"].items()}
    return [
        {
            "type": "function",
            "function": {
                "name": name,
                "description": "",
                "parameters": {
                    "type": "object",
                    "properties": {
                        key: {"type": "string" if kind is str else "object"}
                        for (of, key), kind in kinds.items()
                        if of == name
                    },
                },
            },
        }
        for name in dict.fromkeys(c["name"] for c in calls)
    ]


@given(calls=SEVERAL)
@settings(max_examples=60, deadline=None)
def test_several_calls_are_read_back_in_each_format(calls: list[dict[str, Any]]) -> None:
    """Written by a template and found in the text that is trained."""
    if len({(c["name"], k, type(v)) for c in calls for k, v in c["arguments"].items()}) != len(
        {(c["name"], k) for c in calls for k in c["arguments"]}
    ):
        return  # one parameter with values of two types has no schema
    different = {}
    for tool_format, name in READ.items():
        known = load_chat(DataConfig(template=name), GenerationConfig(), make_tokenizer())
        answer = {
            "role": "assistant",
            "content": "",
            "tool_calls": [call(c["name"], c["arguments"]) for c in calls],
        }
        tools = declared(calls)
        messages, given_tools = for_template(known, [QUESTION, answer], tools)
        found = render_dialogue(known, messages, given_tools)
        trained = found.text[slice(*found.answers[0])]
        read = parse_calls(trained, tool_format, tools)
        if read != calls:
            different[tool_format] = (trained, read)
    assert different == {}


def test_each_template_writes_a_format_that_can_be_read() -> None:
    formats = {index()[name]["tool_format"] for name in template_names()} | {*tool_formats()}
    answers = [
        "Hello there.",
        "",
        "I would call add(1).",
        "{}",
        "[]",
        "null",
        "<tool_call>\n{\n</tool_call>",
        "<|tool_call>call:f{",
        "<|tool_call_start|>[1]<|tool_call_end|>",
    ]
    read = {(name, text): parse_calls(text, name) for name in formats for text in answers}
    assert {key: calls for key, calls in read.items() if calls} == {}


READABLE = sorted({str(index()[name]["tool_format"]) for name in template_names()} | {*tool_formats()})


@pytest.mark.parametrize("tool_format", READABLE)
def test_no_part_of_a_call_is_taken_for_text(tool_format: str) -> None:
    known = chat(tool_format) if tool_format in FORMATS else load_chat(
        DataConfig(template=READ[tool_format]), GenerationConfig(), make_tokenizer()
    )  # fmt: skip
    calls = [call("add", {"x": 1})]
    messages, tools = for_template(known, [QUESTION, {"role": "assistant", "content": "", "tool_calls": calls}],
                                   [{"type": "function", "function": ADD}])  # fmt: skip
    found = render_dialogue(known, messages, tools)
    text = found.text[slice(*found.answers[0])]
    assert parse_calls(text, tool_format), text
    begins = call_begins(text, tool_format)
    assert not re.search("add|x|1|name", text[:begins]), text[:begins]
    assert all(call_begins(text[:upto], tool_format) <= begins for upto in range(len(text)))
    said = "Two sums, then."
    if tool_format in ("glm4", "gpt_oss"):  # nothing marks their calls: all is held back
        assert call_begins(said, tool_format) == 0
    else:
        assert call_begins(said, tool_format) == len(said)
        assert call_begins(f"{said} {text.lstrip()}", tool_format) >= len(said) + 1


def test_values_without_quotes_are_read_by_the_schema() -> None:
    text = "<tool_call>\n<function=f>\n<parameter=a>\n1\n</parameter>\n<parameter=b>\nTrue\n</parameter>\n</function>\n</tool_call>"
    assert parse_calls(text, "qwen3_5") == [{"name": "f", "arguments": {"a": 1, "b": True}}]
    tool = {"function": {"name": "f", "parameters": {"properties": {"a": {"type": "string"}}}}}
    assert parse_calls(text, "qwen3_5", [tool]) == [{"name": "f", "arguments": {"a": "1", "b": True}}]


@pytest.mark.parametrize("name", FORMATS)
def test_tools_are_described_in_the_system_message(name: str) -> None:
    tools = [{"type": "function", "function": ADD}]
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hello"}]
    made, rest = for_template(chat(name), messages, tools)
    assert rest is None
    assert made[0]["content"].startswith("Be kind.\n\n")
    assert "add" in made[0]["content"]
    assert "adds two numbers" in made[0]["content"]
    alone, _ = for_template(chat(name), messages[1:], tools)
    assert [m["role"] for m in alone] == ["system", "user"]


@pytest.mark.parametrize("schema", [{"properties": [1]}, {"properties": {"x": 5}}, {"required": 5}, 7])
@pytest.mark.parametrize("name", FORMATS)
def test_a_schema_that_cannot_be_written_is_refused(name: str, schema: object) -> None:
    tools = [{"type": "function", "function": {"name": "add", "parameters": schema}}]
    with suppress(BadRow):  # some formats write whatever it is
        for_template(chat(name), [{"role": "user", "content": "hello"}], tools)
    assert parse_calls(CALLS[name], name, tools) == [{"name": "add", "arguments": {"x": 1}}]


def test_the_default_description_in_full() -> None:
    made, _ = for_template(
        chat("default"), [{"role": "user", "content": "hello"}], [{"type": "function", "function": ADD}]
    )
    assert made[0]["content"] == (
        "You have access to the following tools:\n"
        "> Tool Name: add\nTool Description: adds two numbers\nTool Args:\n"
        "  - x (integer, required): one\n  - y (integer): \n\n"
        "Use the following format if using a tool:\n```\nAction: tool name (one of [add])\n"
        "Action Input: the input to the tool, in a JSON format representing the kwargs "
        '(e.g. ```{"input": "hello world", "num_beams": 5}```)\n```\n'
    )


def test_results_that_follow_one_another_are_one_message() -> None:
    results = [{"role": "tool", "content": "1"}, {"role": "tool", "content": "2"}]
    made, _ = for_template(chat("qwen"), [{"role": "user", "content": "a"}, *results], None)
    assert made[1:] == [
        {
            "role": "user",
            "content": "<tool_response>\n1\n</tool_response>\n<tool_response>\n2\n</tool_response>",
        }
    ]


def test_a_template_that_knows_tools_writes_them_itself() -> None:
    template = "{% for t in tools %}{{ t.function.name }}{% endfor %}"
    own = make_tokenizer(template + "{% for m in messages %}{{ m.content }}{% endfor %}")
    known = load_chat(DataConfig(), GenerationConfig(), own)
    tools = [{"type": "function", "function": ADD}]
    messages = [{"role": "user", "content": "hello"}]
    assert for_template(known, messages, tools) == (messages, tools)
    assert known.render(messages, tools) == "addhello"
