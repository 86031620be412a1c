"""Tools: described, called, and the model's call read back."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.data_samples import make_tokenizer

from llmf_hydra.config.groups.data import DataConfig
from llmf_hydra.config.groups.generation import GenerationConfig
from llmf_hydra.data.chat.template import Chat, load_chat, tool_formats
from llmf_hydra.data.chat.tools import for_template, parse_calls

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


VALUES = st.one_of(
    st.integers(), st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "Zs")), max_size=8)
)
ARGUMENTS = st.dictionaries(st.from_regex(r"[a-z]{1,5}", fullmatch=True), VALUES, max_size=3)
SEVERAL = st.lists(
    st.fixed_dictionaries({"name": st.from_regex(r"[a-z_]{1,8}", fullmatch=True), "arguments": ARGUMENTS}),
    min_size=1,
    max_size=3,
)


@pytest.mark.parametrize("name", FORMATS)
@given(calls=SEVERAL)
@settings(max_examples=60, deadline=None)
def test_several_calls_are_read_back(name: str, calls: list[dict[str, Any]]) -> None:
    assert parse_calls(written(name, calls), name) == calls


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    "text", ["Hello there.", "", "I would call add(1).", "{}", "[]", "null", "<tool_call>\n{\n</tool_call>"]
)
def test_an_answer_without_a_call(name: str, text: str) -> None:
    assert parse_calls(text, name) is None


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
        '(e.g. ```{"input": "hello world", "num_beams": 5}```)\n```'
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
