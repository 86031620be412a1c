"""Calls of tools, read back from a model's answer: one reader per tool format.

Where a format writes values as bare text, the schemas of the tools say which of them are strings.
"""

import ast
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

Call = dict[str, Any]
"""`name`, and `arguments` as a mapping (or whatever JSON value the model wrote)."""
Types = Mapping[tuple[str, str], str]
"""The JSON type of each parameter, by tool and parameter."""
Reader = Callable[[str, Types], Iterator[Call]]

_JSON = json.JSONDecoder()


def parse_calls(
    text: str, tool_format: str, tools: Sequence[Mapping[str, Any]] | None = None
) -> list[Call] | None:
    """The calls of tools in an answer, or None if it makes none or writes one that cannot be read."""
    try:
        return list(_READERS[tool_format](text, _types(tools or ()))) or None
    except (ValueError, SyntaxError, RecursionError):
        return None


def _types(tools: Sequence[Mapping[str, Any]]) -> Types:
    functions = [tool["function"] for tool in tools]
    schemas = [(function["name"], function.get("parameters")) for function in functions]
    return {
        (tool, name): str(spec.get("type"))
        for tool, schema in schemas
        if isinstance(schema, Mapping) and isinstance(schema.get("properties"), Mapping)
        for name, spec in schema["properties"].items()
        if isinstance(spec, Mapping)
    }


def _json_calls(text: str) -> Iterator[Call]:
    """One call or a list of calls in JSON, whatever follows; the arguments may be called parameters."""
    value, _ = _JSON.raw_decode(text.strip())
    for call in value if isinstance(value, list) else [value]:
        if not isinstance(call, dict) or not isinstance(call.get("name"), str):
            raise ValueError(text)
        yield {"name": call["name"], "arguments": call.get("arguments", call.get("parameters", {}))}


def _json_after(prefix: str) -> Reader:
    """What follows the prefix is JSON, or the whole answer where the prefix is missing (skipped special tokens)."""

    def read(text: str, types: Types) -> Iterator[Call]:
        yield from _json_calls(text.rpartition(prefix)[2] if prefix else text)

    return read


def _json_between(pattern: str) -> Reader:
    """Each match of the pattern holds a call, or a list of calls, in JSON."""

    def read(text: str, types: Types) -> Iterator[Call]:
        for match in re.finditer(pattern, text, re.DOTALL):
            yield from _json_calls(match["json"])

    return read


def _name_and_json(pattern: str) -> Reader:
    """The pattern ends where the arguments begin, as JSON, and has the group `name`."""

    def read(text: str, types: Types) -> Iterator[Call]:
        at = 0
        while match := re.compile(pattern, re.MULTILINE).search(text, at):
            arguments, at = _JSON.raw_decode(text, match.end())
            yield {"name": match["name"], "arguments": arguments}

    return read


def _marked_up(call: str, parameter: str) -> Reader:
    """Calls and their parameters between tags: `call` has the groups name and inside, `parameter` name and value."""

    def read(text: str, types: Types) -> Iterator[Call]:
        for match in re.finditer(call, text, re.DOTALL):
            name = match["name"]
            arguments = {
                found["name"]: _bare_value(found["value"], types.get((name, found["name"])))
                for found in re.finditer(parameter, match["inside"], re.DOTALL)
            }
            yield {"name": name, "arguments": arguments}

    return read


def _bare_value(text: str, kind: str | None) -> object:
    """A value without quotes: JSON or a Python literal if it is one, else text; text where the schema says so."""
    if kind == "string":
        return text
    for read in (json.loads, ast.literal_eval):
        try:
            value = read(text)
        except (ValueError, SyntaxError, RecursionError):
            continue
        if read is json.loads or isinstance(value, bool | int | float | list | dict | None):
            return value
    return text


def _python_calls(text: str, types: Types) -> Iterator[Call]:
    """LFM2: a Python list of calls with keyword arguments; mappings and lists within are JSON."""
    for match in re.finditer(r"<\|tool_call_start\|>(.*?)<\|tool_call_end\|>", text, re.DOTALL):
        body = ast.parse(match[1], mode="eval").body
        for call in body.elts if isinstance(body, ast.List) else [body]:
            if not isinstance(call, ast.Call):
                raise ValueError(match[1])
            arguments = {str(word.arg): _python_value(match[1], word.value) for word in call.keywords}
            yield {"name": ast.unparse(call.func), "arguments": arguments}


def _python_value(source: str, node: ast.expr) -> object:
    if isinstance(node, ast.Constant):
        return node.value
    return _bare_value(ast.get_source_segment(source, node) or "", None)


_QUOTE = '<|"|>'


def _gemma4_calls(text: str, types: Types) -> Iterator[Call]:
    """Gemma 4: JSON without quotes around keys, and with a token as the quote of strings."""
    for match in re.finditer(r"<\|tool_call>call:([^{]+)", text):
        arguments, _ = _gemma4_value(text, match.end())
        yield {"name": match[1], "arguments": arguments}


def _gemma4_value(text: str, at: int) -> tuple[object, int]:
    """The value that begins at a character, and the character after it. Raises ValueError."""
    if text.startswith(_QUOTE, at):
        end = text.index(_QUOTE, at + len(_QUOTE))
        return text[at + len(_QUOTE) : end], end + len(_QUOTE)
    if text.startswith("{", at):
        mapping: dict[str, object] = {}
        at += 1
        while not text.startswith("}", at):
            end = text.index(":", at)
            mapping[text[at:end]], at = _gemma4_value(text, end + 1)
            at += text.startswith(",", at)
        return mapping, at + 1
    if text.startswith("[", at):
        values: list[object] = []
        at += 1
        while not text.startswith("]", at):
            value, at = _gemma4_value(text, at)
            values.append(value)
            at += text.startswith(",", at)
        return values, at + 1
    return _JSON.raw_decode(text, at)


def call_begins(text: str, tool_format: str) -> int:
    """Where in an answer so far a call of a tool begins, or may be beginning; the text's length where none is."""
    if tool_format in _BARE and text.lstrip()[:1] in ("", "{", "["):
        return 0
    return min((_begins(text, opening) for opening in _OPENINGS[tool_format]), default=len(text))


def _begins(text: str, opening: str) -> int:
    at = text.find(opening)
    if at >= 0:
        return at
    halves = range(min(len(opening) - 1, len(text)), 0, -1)
    return next((len(text) - half for half in halves if text.endswith(opening[:half])), len(text))


_OPENINGS: dict[str, tuple[str, ...]] = {  # what begins a call; an empty one: anything may
    "default": ("Action:",),
    "gemma4": ("<|tool_call>",),
    "glm4": ("",),  # a line with a name alone
    "glm4_moe": ("<tool_call>",),
    "gpt_oss": ("",),  # marked by special tokens alone
    "granite3": ("<|tool_call|>",),
    "hunyuan": ("<tool_call>",),
    "lfm2": ("<|tool_call_start|>",),
    "ling": ("<tool_call>",),
    "llama3": (),
    "minimax2": ("<minimax:tool_call>", "<invoke "),
    "ministral3": ("[TOOL_CALLS]",),
    "mistral": ("[TOOL_CALLS]",),
    "phi4_mini": ("<|tool_call|>",),
    "qwen": ("<tool_call>",),
    "qwen3_5": ("<tool_call>", "<function="),
    "seed_oss": ("<seed:tool_call>", "<function="),
}
_BARE = (
    "granite3",
    "llama3",
    "mistral",
    "phi4_mini",
)  # an answer that is JSON from its first sign on is a call too

_TOOL_CALL = r"<tool_call>\s*(?P<json>\{.*?\})\s*</tool_call>"
_FUNCTION = r"<function=(?P<name>[^>]+)>(?P<inside>.*?)</function>"

_READERS: dict[str, Reader] = {
    "default": _name_and_json(r"Action:\s*(?P<name>[\w.-]+)\s*Action Input:\s*"),
    "gemma4": _gemma4_calls,
    "glm4": _name_and_json(r"(?:^|<\|assistant\|>)(?P<name>[\w.-]+)\n(?=\{)"),
    "glm4_moe": _marked_up(
        r"<tool_call>(?P<name>[^\n<]+)(?P<inside>.*?)</tool_call>",
        r"<arg_key>(?P<name>.*?)</arg_key>\s*<arg_value>(?P<value>.*?)</arg_value>",
    ),
    "gpt_oss": _name_and_json(r"to=functions\.(?P<name>[\w.-]+)<\|channel\|>commentary[^<]*<\|message\|>"),
    "granite3": _json_after("<|tool_call|>"),
    "hunyuan": _name_and_json(r"<tool_call>(?P<name>[^\n]+)\n```json\n"),
    "lfm2": _python_calls,
    "ling": _json_between(_TOOL_CALL),
    "llama3": _json_after(""),
    "minimax2": _marked_up(
        r'<invoke name="(?P<name>[^"]+)">(?P<inside>.*?)</invoke>',
        r'<parameter name="(?P<name>[^"]+)">(?P<value>.*?)</parameter>',
    ),
    "ministral3": _name_and_json(r"\[TOOL_CALLS\](?P<name>[^\[]+)\[ARGS\]"),
    "mistral": _json_after("[TOOL_CALLS]"),
    "phi4_mini": _json_after("<|tool_call|>"),
    "qwen": _json_between(_TOOL_CALL),
    "qwen3_5": _marked_up(_FUNCTION, r"<parameter=(?P<name>[^>]+)>\n(?P<value>.*?)\n</parameter>"),
    "seed_oss": _marked_up(_FUNCTION, r"<parameter=(?P<name>[^>]+)>(?P<value>.*?)</parameter>"),
}
