"""From a source to canonical rows, each with its number, or with what is wrong with it.

Standard library only.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from llmf_hydra.data.formats import converter, guess
from llmf_hydra.data.kinds import MEANING, REMEDY
from llmf_hydra.data.rows import MEDIA, BadRow, Row, check_characters, empty_answer, first_line
from llmf_hydra.data.sources import files, hub
from llmf_hydra.data.sources.dataset_info import Source, columns_of, tags_of
from llmf_hydra.errors import NO_VALUE, Problem

RawRow = tuple[Path, int, dict[str, object] | BadRow]
"""A row as its file holds it: the file, the row's number in it, and the row or what is wrong with it."""
LOOKED_AT = 200  # rows of each dataset that are read before the start


@dataclass(frozen=True, slots=True)
class Read:
    """One row as it was read. `number` counts from 1 over the whole source, `line` in its file."""

    number: int
    file: Path
    line: int
    row: Row | BadRow
    raw: object = None  # for rejected.jsonl
    repeated_keys: bool = False

    def to_dict(self) -> dict[str, object]:
        """A bad row with its place and reason, for rejected.jsonl."""
        assert isinstance(self.row, BadRow)  # the caller asks bad rows only
        bad = self.row
        place = {"file": str(self.file), "row": self.line, "field": bad.field}
        return {**place, "reason": bad.what, "remedy": bad.remedy, "content": self.raw}

    def problem(self) -> Problem:
        """What is wrong with a bad row, in one line."""
        assert isinstance(self.row, BadRow)  # the caller asks bad rows only
        return bad_row_problem(self.file, self.line, self.row)


def bad_row_problem(file: Path, line: int, bad: BadRow) -> Problem:
    """`train.jsonl row 7: output is empty; an answer to be learned needs text`."""
    what = f"{bad.field} {bad.what}" if bad.field else bad.what
    return Problem(f"{file} row {line}", NO_VALUE, what, bad.remedy)


def settled(source: Source, first: Mapping[str, object]) -> Source:
    """The source with its format, found by the columns of the first row where no table names it."""
    if source.format:
        return source
    found = guess(first)
    if found is None:
        have = ", ".join(map(str, first)) or "none"
        raise BadRow("", f"has columns of no known format ({have})", "describe the file in dataset_info.json")
    media = {name: name for name in MEDIA if name in first}
    return replace(source, format=found, columns=columns_of(found, {}) | media, tags=tags_of(found, {}))


def settled_by_first_row(source: Source) -> Source:
    """The source with its format. Where no row tells it, each row says so when it is converted."""
    if source.format or not (source.files or source.streamed):
        return source
    with contextlib.suppress(BadRow, files.Unreadable):
        sound = (raw for _, _, raw in read_files(source) if not isinstance(raw, BadRow))
        looked_at = list(islice(sound, 1 if source.streamed else LOOKED_AT))
        if looked_at:
            named = {name: raw[name] for raw in looked_at for name in MEDIA if raw.get(name)}
            return settled(source, named | looked_at[0])
    return source


def rows(source: Source, kind: str | None, raw_rows: Iterator[RawRow], start: int = 1) -> Iterator[Read]:
    """Canonical rows of one kind (None: of any), numbered from `start`."""
    for number, (path, line, raw) in enumerate(raw_rows, start):
        if not source.format and not isinstance(raw, BadRow):
            with contextlib.suppress(BadRow):
                source = settled(source, raw)
        yield read_one(source, kind, number, path, line, raw)


def read_one(
    source: Source, kind: str | None, number: int, path: Path, line: int, raw: Mapping[str, object] | BadRow
) -> Read:
    """One raw row in its canonical form, or what is wrong with it."""
    if isinstance(raw, BadRow):
        return Read(number, path, line, raw)
    try:
        source = settled(source, raw)
        row = converter(format_for(source, kind))(raw, source)
        check_characters(row)
        if row.blank is not None and kind != "prompt":
            raise empty_answer(row.blank)
        if kind is not None and kind not in row.kinds():
            raise misfit(kind, row)
        row.columns = raw if kind == "prompt" else None
    except BadRow as bad:
        return Read(number, path, line, bad, raw)
    except Exception as error:  # a row may hold anything, and no row may end a run in a traceback
        return Read(number, path, line, unforeseen(error), raw)
    return Read(number, path, line, row, raw, isinstance(raw, files.RepeatedKeys))


def unforeseen(error: Exception) -> BadRow:
    """What no check foresaw, as the fault of the row at which it came up."""
    return BadRow("", f"cannot be read: {type(error).__name__}: {first_line(error)}", "correct or remove it")


def format_for(source: Source, kind: str | None) -> str:
    """Plain text may stand in the table as alpaca with only a prompt column, as LLaMA-Factory has it."""
    only_prompt = source.column("prompt") and not source.column("response")
    return "text" if kind in ("text", None) and only_prompt and _is_text(source) else source.format


def _is_text(source: Source) -> bool:
    return source.format == "alpaca" and not source.ranking and not source.column("chosen")


class Misfit(BadRow):
    """A sound row that serves other kinds of training."""


def misfit(kind: str, row: Row) -> Misfit:
    """What the row is, and what is needed."""
    have = " or ".join(MEANING[k] for k in sorted(row.kinds())) or "nothing to train on"
    return Misfit("", f"holds {have}, where {MEANING[kind]} are needed", REMEDY[kind])


def read_files(source: Source) -> Iterator[RawRow]:
    """`(file, line, row)` of all files of a source, one after another, or of what is streamed from a hub.

    Raises files.Unreadable with the file.
    """
    if source.streamed:
        for line, raw in enumerate(hub.streamed(source), 1):
            yield Path(source.hub), line, raw
    for path in source.files:
        try:
            for line, raw in files.read(path):
                yield path, line, raw
        except files.Unreadable as error:
            raise files.Unreadable(f"{path} {error}") from None
