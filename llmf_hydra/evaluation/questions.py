"""Questions with their choices, and the tables that they are published in. Without torch."""

import csv
import io
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from llmf_hydra.errors import NO_VALUE, Problem, Refused

LETTERS = string.ascii_uppercase
WITHOUT_HEAD = ("question", "a", "b", "c", "d", "answer")  # the columns of MMLU's files, which name none


@dataclass(frozen=True)
class Question:
    """A question, its choices in the order of their letters, and the letter of the right one."""

    text: str
    choices: tuple[str, ...]
    answer: str

    @property
    def letters(self) -> str:
        """The letters of the choices."""
        return LETTERS[: len(self.choices)]


@dataclass(frozen=True)
class Subject:
    """A subject of a benchmark: its questions, and the examples that may stand before them."""

    key: str  # as its files are called
    name: str  # as the prompt says it
    category: str | None
    questions: tuple[Question, ...]
    examples: tuple[Question, ...] = ()


def fault(subjects: Sequence[Subject], n_shot: int) -> Problem | None:
    """Why a benchmark of these subjects can't be asked: no questions, or fewer examples than are wanted."""
    if not any(one.questions for one in subjects):
        return Problem("evaluation.task_dir", NO_VALUE, "its tables hold no questions", "name another folder")
    short = [one for one in subjects if len(one.examples) < n_shot]
    if not short:
        return None
    fewest = min(len(one.examples) for one in short)
    what = f"subject {short[0].key} has {len(short[0].examples)} examples"
    if len(short) > 1:
        what = f"{len(short)} subjects have fewer examples, the first of them {short[0].key}"
    return Problem("evaluation.n_shot", n_shot, what, f"set it to {fewest}")


def read_table(text: str, place: str) -> tuple[Question, ...]:
    """The questions of a CSV file: with a head that names question, A, B, …, answer, as C-Eval and CMMLU have it, or
    without one in MMLU's order. `place` names the file. Raises Refused."""
    rows = [row for row in csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline="")) if row]
    head = _head(rows[0]) if rows else None
    named = head is not None
    columns = head or {name: at for at, name in enumerate(WITHOUT_HEAD)}
    return tuple(_questions(rows[named:], columns, f"{place} row", 1 + named))


def question_of(
    text: object, choices: Sequence[object], answer: object, place: str, key: str = "evaluation.task_dir"
) -> Question:
    """A question whose right choice is given as its letter or its number, counted from 0. Raises Refused."""
    letters = LETTERS[: len(choices)]
    if isinstance(answer, int) and 0 <= answer < len(letters):
        answer = letters[answer]
    said = str(answer).strip().upper()
    if len(choices) < 2 or said not in letters or len(said) != 1:
        what = f"{place} names no right answer among {', '.join(letters) or 'none'} (answer: {answer!r})"
        raise Refused([Problem(key, NO_VALUE, what, "choose a split that has answers, or correct the file")])
    return Question(str(text), tuple(map(str, choices)), said)


def _head(row: Sequence[str]) -> dict[str, int] | None:
    """Where the columns stand, by their names in lower case; None for a row that names none."""
    names = {name.strip().lower(): at for at, name in enumerate(row)}
    return names if {"question", "a", "b"} <= names.keys() else None


def _questions(
    rows: Sequence[Sequence[str]], columns: Mapping[str, int], place: str, first: int
) -> Iterator[Question]:
    letters = [letter for letter in LETTERS.lower() if letter in columns]
    needed = max(columns[name] for name in ("question", *letters))
    for number, row in enumerate(rows, first):
        if len(row) <= needed:
            what = f"{place} {number} has {len(row)} columns, and {needed + 1} are needed"
            raise Refused([Problem("evaluation.task_dir", NO_VALUE, what, "correct the file")])
        at = columns.get("answer", len(row))
        answer = row[at] if at < len(row) else ""
        yield question_of(
            row[columns["question"]],
            [row[columns[letter]] for letter in letters],
            answer,
            f"{place} {number}",
        )
