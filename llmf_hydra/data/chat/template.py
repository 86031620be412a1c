"""`Chat`: a chat template, ready to write dialogues: the tokenizer's own, or a named one of templates/."""

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import jinja2

from llmf_hydra.config.groups.data import DataConfig
from llmf_hydra.config.groups.generation import GenerationConfig
from llmf_hydra.data.chat.index import Template, index, template_names, template_text, tool_formats
from llmf_hydra.data.chat.jinja import compiled
from llmf_hydra.data.rows import BadRow, Message, first_line
from llmf_hydra.errors import Problem, Refused

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Chat:
    """A template's text and what it is given: special tokens, a default system message, ends of turns."""

    name: str  # of the named template; empty for the tokenizer's own
    text: str
    special_tokens: Mapping[str, object] = field(default_factory=dict)
    stops: tuple[str, ...] = ()  # texts that end a turn, longest first
    turn_ends: tuple[str, ...] = ()  # those of a named template
    default_system: str | None = None
    own_system: str | None = None  # what the template puts where there is no system message
    tool_format: str | None = None  # None: the template writes tools itself, if it can
    call_format: str | None = None  # how calls stand in an answer, for `parse_calls`

    @functools.cached_property
    def marks(self) -> bool:
        """Whether the template says itself what is generated."""
        return re.search(r"\{%-?\s*generation\s*-?%\}", self.text) is not None

    @functools.cached_property
    def knows_thoughts(self) -> bool:
        """Whether the template has a place for `reasoning_content`, perhaps under its name `thinking`."""
        return "reasoning_content" in self.text or "thinking" in self.text

    @functools.cached_property
    def writes_tools(self) -> bool:
        """Whether the template has a place for tools."""
        return re.search(r"\btools\b", self.text) is not None

    def render(
        self,
        messages: Sequence[Message],
        tools: list[dict[str, object]] | None = None,
        answer_next: bool = False,
    ) -> str:
        """The text of a dialogue, with the header of the next answer if asked for. Raises BadRow."""
        try:
            return compiled(self.text).render(
                messages=messages,
                tools=tools,
                documents=None,
                add_generation_prompt=answer_next,
                **self.special_tokens,
            )
        except jinja2.TemplateError as error:
            raise BadRow(
                "", f"is refused by the chat template: {error}", "choose a template that fits"
            ) from None
        except Exception as error:  # a template runs filters and methods of Python on whatever the row holds
            what = f"makes the chat template fail: {type(error).__name__}: {first_line(error)}"
            raise BadRow("", what, "correct the row, or choose a template that fits") from None

    def with_system(self, messages: list[Message]) -> list[Message]:
        """The messages, with the default system message in front where there is none."""
        if self.default_system is None or (messages and messages[0]["role"] == "system"):
            return messages
        return [{"role": "system", "content": self.default_system}, *messages]


def load_chat(data: DataConfig, generation: GenerationConfig, tokenizer: "PreTrainedTokenizerBase") -> Chat:
    """The template that the config names, else the tokenizer's own. Raises Refused."""
    if data.tool_format is not None and data.tool_format not in tool_formats():
        raise Refused([Problem.bad_choice("data.tool_format", data.tool_format, sorted(tool_formats()))])
    special = dict(tokenizer.special_tokens_map)
    stops = {str(tokenizer.eos_token), *map(str, tokenizer.all_special_tokens)} - {"None"}
    if data.template is None:
        text = _own(tokenizer)
        known: Template = {"file": ""}
    elif data.template not in index():
        raise Refused([Problem.bad_choice("data.template", data.template, template_names())])
    else:
        text = template_text(data.template)
        known = index()[data.template]
    stops |= set(known.get("stop", ()))
    chat = Chat(
        data.template or "",
        text,
        special,
        tuple(sorted(stops, key=len, reverse=True)),
        tuple(known.get("stop", ())),
        generation.default_system,
        known.get("system"),
        data.tool_format,
        data.tool_format or known.get("tool_format"),
    )
    return chat if chat.writes_tools else replace(chat, tool_format=chat.call_format)


def stop_sequences(data: DataConfig, tokenizer: "PreTrainedTokenizerBase") -> list[list[int]]:
    """Token ids at which an answer ends, a sequence per text that ends a turn: of the named template, and EOS.

    A text that the tokenizer doesn't know as one token is a sequence of several.
    """
    ends = index()[data.template].get("stop", ()) if data.template is not None else ()
    texts: dict[str, None] = dict.fromkeys(
        [*ends, *([str(tokenizer.eos_token)] if tokenizer.eos_token else [])]
    )
    return [tokenizer.encode(text, add_special_tokens=False) for text in texts]


def _own(tokenizer: "PreTrainedTokenizerBase") -> str:
    if not tokenizer.chat_template:
        what = "the tokenizer has no chat template of its own"
        raise Refused([Problem("data.template", None, what, "name one, such as data.template=chatml")])
    return tokenizer.get_chat_template()
