"""trl: TRL's own forms: prompt/completion, prompt/chosen/rejected, chosen/rejected, and labels beside them.

A prompt or an answer is a list of messages, or plain text, which is one message.
"""

from collections.abc import Mapping

from llmf_hydra.data.formats import openai
from llmf_hydra.data.formats.common import cell, finished, split_answer
from llmf_hydra.data.rows import BadRow, Message, Row, need_answer, need_text
from llmf_hydra.data.sources.dataset_info import DEFAULT_TAGS, Source


def convert(raw: Mapping[str, object], source: Source) -> Row:
    """One row. Raises BadRow."""
    if cell(raw, source, "messages") is not None:
        column = str(source.column("messages"))
        return finished(split_answer(_messages(raw[column], "user", column)), raw, source, column)
    column = str(source.column("prompt"))
    prompt = _part(raw, source, "prompt", "user")
    answers = [
        part for name in _answer_columns(raw, source) if (part := _part(raw, source, name, "assistant"))
    ]
    if not prompt:
        prompt, answers = _common_start(answers, column)
    return finished(Row(prompt=prompt, answers=answers), raw, source, column)


def _answer_columns(raw: Mapping[str, object], source: Source) -> tuple[str, ...]:
    ranked = ("chosen", "rejected")
    have = [name for name in ranked if cell(raw, source, name) is not None]
    if len(have) == 1:
        missing = ranked[1 - ranked.index(have[0])]
        raise BadRow(
            source.column(missing) or missing, "is missing in a ranked row", "give chosen and rejected"
        )
    return ranked if have else ("response",)


def _part(raw: Mapping[str, object], source: Source, name: str, role: str) -> list[Message]:
    value = cell(raw, source, name)
    return [] if value is None else _messages(value, role, str(source.column(name)))


def _messages(value: object, role: str, column: str) -> list[Message]:
    if isinstance(value, list):
        return openai.read_messages(value, Source("", tags=DEFAULT_TAGS["openai"]), column)
    text = need_answer(value, column) if role == "assistant" else need_text(value, column)
    return [{"role": role, "content": text}]


def _common_start(answers: list[list[Message]], column: str) -> tuple[list[Message], list[list[Message]]]:
    """The prompt that two whole dialogues share, and what is left of each."""
    if len(answers) < 2:
        raise BadRow(column, "is missing", "give a prompt")
    first, second = answers
    shared = 0
    while shared < min(len(first), len(second)) - 1 and first[shared] == second[shared]:
        shared += 1
    return first[:shared], [first[shared:], second[shared:]]
