"""alpaca: instruction, input, output, and perhaps system and history; ranked with chosen and rejected."""

from collections.abc import Mapping

from llmf_hydra.data.formats.common import cell, finished
from llmf_hydra.data.rows import BadRow, Message, Row, is_blank, need_answer, need_text
from llmf_hydra.data.sources.dataset_info import Source


def convert(raw: Mapping[str, object], source: Source) -> Row:
    """One row; the query stands under the instruction in the same user message. Raises BadRow."""
    prompt_column = str(source.column("prompt"))
    instruction = need_text(cell(raw, source, "prompt"), prompt_column)
    query = cell(raw, source, "query")
    content = f"{instruction}\n{need_text(query, str(source.column('query')))}" if query else instruction
    if not content.strip():
        raise BadRow(prompt_column, "is empty", "a question needs text")
    messages = [*_history(cell(raw, source, "history"), str(source.column("history"))), _user(content)]
    row = Row(prompt=messages, answers=_answers(raw, source))
    if not row.answers and is_blank(cell(raw, source, "response")):
        row.blank = source.column("response")
    return finished(row, raw, source, prompt_column)


def _user(content: str) -> Message:
    return {"role": "user", "content": content}


def _assistant(content: str) -> Message:
    return {"role": "assistant", "content": content}


def _history(value: object, field: str) -> list[Message]:
    if not value:
        return []
    messages: list[Message] = []
    for pair in value if isinstance(value, list) else [value]:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise BadRow(
                field, "is not a list of [question, answer] pairs", "write [[question, answer], ...]"
            )
        messages += [_user(need_text(pair[0], field)), _assistant(need_answer(pair[1], field))]
    return messages


def _answers(raw: Mapping[str, object], source: Source) -> list[list[Message]]:
    if source.ranking or (cell(raw, source, "chosen") and cell(raw, source, "rejected")):
        return [[_assistant(text)] for text in _ranked(raw, source)]
    column = source.column("response")
    value = cell(raw, source, "response")
    if column is None or (value is None and column not in raw and "response" not in source.given_columns):
        return []
    if is_blank(value):  # a row of a test set: a question to be answered
        return []
    if isinstance(value, list):
        raise BadRow(
            column, "is a list of answers", "set ranking: true in dataset_info.json for ranked answers"
        )
    return [[_assistant(need_answer(value, column))]]


def _ranked(raw: Mapping[str, object], source: Source) -> list[str]:
    """Chosen and rejected from their columns, or the two best of a list of answers (the old form)."""
    response = cell(raw, source, "response")
    if isinstance(response, list) and source.column("chosen") not in raw:
        if len(response) < 2:
            raise BadRow(
                str(source.column("response")),
                "has fewer than two answers to rank",
                "give a better and a worse one",
            )
        return [need_answer(text, str(source.column("response"))) for text in response[:2]]
    answers: list[str] = []
    for name in ("chosen", "rejected"):
        value = cell(raw, source, name)
        if value is None:
            raise BadRow(
                source.column(name) or name, "is missing in a ranked row", "give chosen and rejected"
            )
        answers.append(need_answer(value, str(source.column(name))))
    return answers
