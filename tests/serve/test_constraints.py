"""Answers that must follow a form: the call of a tool, or JSON of a schema."""

import json
from typing import Any

import jsonschema
import pytest
from support.taught_model import KNOWN, WEATHER, Served

from llmf_hydra.serve.constraint import CannotConstrain, Constraints
from llmf_hydra.serve.engine import Decoding, Request
from llmf_hydra.serve.transformers_engine import TransformersEngine

CHAT = "/v1/chat/completions"
UNIT = {"type": "object", "properties": {"unit": {"type": "string", "enum": ["celsius", "kelvin"]}},
        "required": ["unit"], "additionalProperties": False}  # fmt: skip
TOOLS: Any = [{"type": "function", "function": {**WEATHER, "parameters": UNIT}},
              {"type": "function", "function": {"name": "add", "parameters": {
                  "type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"]}}}]  # fmt: skip
PERU = next(iter(KNOWN))


def asked(served: Served, **more: Any) -> Any:
    body = {"messages": [{"role": "user", "content": PERU}], "max_tokens": 90, "temperature": 0, **more}
    with served.client() as client:
        return client.post(CHAT, json=body)


def schema_of(schema: Any) -> Any:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


@pytest.mark.parametrize("name", ["get_weather", "add"])
def test_the_tool_that_is_named_is_called(name: str, served: Served) -> None:
    """The model would call nothing."""
    plain = asked(served, tools=TOOLS).json()["choices"][0]
    assert plain["message"]["content"] and "tool_calls" not in plain["message"]
    choice = {"type": "function", "function": {"name": name}}
    done = asked(served, tools=TOOLS, tool_choice=choice).json()["choices"][0]
    (call,) = done["message"]["tool_calls"]
    assert done["finish_reason"] == "tool_calls" and done["message"]["content"] is None
    parameters = next(tool["function"]["parameters"] for tool in TOOLS if tool["function"]["name"] == name)
    assert call["function"]["name"] == name
    jsonschema.validate(json.loads(call["function"]["arguments"]), parameters)


def test_a_required_call_is_one_of_the_tools_also_in_a_stream(served: Served) -> None:
    done = asked(served, tools=TOOLS, tool_choice="required", n=2, temperature=1, seed=3).json()
    names = [choice["message"]["tool_calls"][0]["function"]["name"] for choice in done["choices"]]
    assert len(names) == 2 and set(names) <= {"get_weather", "add"}
    lines = asked(served, tools=TOOLS, tool_choice="required", stream=True).text.splitlines()
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    calls = [call for delta in deltas for call in delta.get("tool_calls", [])]
    assert len(calls) == 1 and json.loads(calls[0]["function"]["arguments"])
    assert not any(delta.get("content") for delta in deltas)


@pytest.mark.parametrize(
    "schema",
    [
        UNIT,
        {"type": "object", "required": ["a", "b"], "properties": {
            "a": {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 2},
            "b": {"$ref": "#/$defs/x"}},
         "$defs": {"x": {"enum": ["p", "qq"]}}},
        {"anyOf": [{"type": "null"}, {"const": "no"}]},
    ],
)  # fmt: skip
@pytest.mark.parametrize("temperature", [0, 1.5])
def test_the_answer_follows_its_schema(schema: Any, temperature: float, served: Served) -> None:
    done = asked(served, response_format=schema_of(schema), temperature=temperature, seed=5).json()
    choice = done["choices"][0] if "choices" in done else pytest.fail(str(done))
    assert choice["finish_reason"] == "stop", choice
    jsonschema.validate(json.loads(choice["message"]["content"]), schema)


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}}, "schema.a: 'pattern' is not"),
        ({"type": "integer", "minimum": 3}, "schema: 'minimum' is not followed; what is: $defs"),
        ({"type": "bogus"}, "Unsupported type bogus"),
        ({"enum": [True]}, "not True"),
        ({"enum": []}, "a list that isn't empty"),
        ({"const": "né"}, "no token of this model is, alone, the character é"),
        ({"$ref": "#/$defs/gone"}, "can't be followed"),
        ({"properties": {"a": 3}}, "schema.a is no schema"),
        ({"type": ["string", "null"], "enum": ["x"]}, "write anyOf"),
    ],
)  # fmt: skip
def test_what_cannot_be_followed_is_refused(schema: Any, said: str, served: Served) -> None:
    refused = asked(served, response_format=schema_of(schema))
    assert refused.status_code == 400 and said in refused.json()["error"]["message"], refused.text


@pytest.mark.parametrize(
    "more",
    [
        {"tool_choice": "required"},
        {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "gone"}}},
        {"tools": TOOLS, "tool_choice": "required", "response_format": {"type": "json_object"}},
        {"response_format": {"type": "json_schema"}},
    ],
)
def test_wishes_that_contradict_each_other_are_refused(more: dict[str, Any], served: Served) -> None:
    assert asked(served, **more).status_code == 400


def test_a_schema_that_contains_itself_is_told(engine: TransformersEngine) -> None:
    schema: dict[str, Any] = {"type": "array"}
    for _ in range(40):
        schema = {"type": "array", "items": schema}
    with pytest.raises(CannotConstrain, match="more than 32 deep"):
        engine.constraints.of(schema)


def test_each_answer_is_held_to_its_own_form(engine: TransformersEngine) -> None:
    """Answers that are written together, of which some are free."""
    constraints: Constraints = engine.constraints
    prompt, decoding = engine.prompt([{"role": "user", "content": PERU}]), Decoding(do_sample=False)
    forms = [None, constraints.of({"const": "x"}, "<", ">"), None, constraints.of({"enum": [7]})]
    texts = [one.text for one in engine.generate([Request(prompt, decoding, form) for form in forms])]
    assert texts[0] == texts[2] == KNOWN[PERU]
    assert (texts[1].replace(" ", "").replace("\n", ""), texts[3].strip()) == ('<"x">', "7")
