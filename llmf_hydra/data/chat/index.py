"""The names of templates and tool formats, and what index.yaml and tool_formats.yaml say of them."""

import functools
import re
from pathlib import Path
from typing import Required, TypedDict

import yaml

TEMPLATES = Path(__file__).parent / "templates"
_INCLUDE = re.compile(r"\{%- include '([\w/]+\.jinja)' -%\}\n?")


class Template(TypedDict, total=False):
    """What index.yaml says of a named template."""

    file: Required[str]
    stop: list[str]  # texts that end a turn, beside the tokenizer's own end
    tool_format: str
    aliases: list[str]
    system: str  # what the template puts where a dialogue has no system message
    source: str  # the model or the text that it is written for


@functools.cache
def index() -> dict[str, Template]:
    """What is known of each template, by each of its names: `file`, `stop`, `tool_format`, `system`, `source`."""
    entries: dict[str, Template] = yaml.safe_load((TEMPLATES / "index.yaml").read_text(encoding="utf-8"))
    return {
        alias: {"file": name, **entry}
        for name, entry in entries.items()
        for alias in (name, *entry.get("aliases", ()))
    }


@functools.cache
def tool_formats() -> dict[str, dict[str, str]]:
    """The formats that `data.tool_format` names: how tools, calls and results are written into contents."""
    return yaml.safe_load((TEMPLATES / "tool_formats.yaml").read_text(encoding="utf-8"))


def template_names() -> list[str]:
    """The named templates."""
    return sorted(index())


# What a template that writes tools itself puts around calls, in the order in which they are looked for.
_MARKS = {
    "<function=": "qwen3_5",
    "<tool_call>": "qwen",
    "<|tool_call_start|>": "lfm2",
    "[TOOL_CALLS]": "mistral",
    "<|tool_call|>": "granite3",
}


def call_format(named: str | None, template: str) -> str | None:
    """How calls of tools stand in an answer: as the index says, else as the template's text shows. None: not known.

    A template without a place for tools gets them in the format `default`.
    """
    if named is not None:
        return named
    if not re.search(r"\btools\b", template):
        return "default"
    return next((known for mark, known in _MARKS.items() if mark in template), None)


@functools.cache
def template_text(name: str) -> str:
    """A template with its parts in place, so that it stands alone in a saved tokenizer."""
    return _text(f"{index()[name]['file']}.jinja")


def _text(file: str) -> str:
    written = (TEMPLATES / file).read_text(encoding="utf-8")
    return _INCLUDE.sub(lambda match: _text(match[1]), written)
