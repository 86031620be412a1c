"""`llmf data list | validate | convert`: a look at datasets without training. Standard library only."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from llmf_hydra.cli.commands import Parser, RefusingParser
from llmf_hydra.config.groups.data import DataConfig
from llmf_hydra.data.formats.write import WRITERS
from llmf_hydra.data.kinds import KINDS
from llmf_hydra.data.rows import BadRow, Row
from llmf_hydra.data.sources import files, reader
from llmf_hydra.data.sources import resolve as sources
from llmf_hydra.data.sources.dataset_info import Source
from llmf_hydra.errors import DONE, FAILED, NO_VALUE, REFUSED, Problem, Refused


def main(argv: Sequence[str]) -> int:
    """Run one command; returns the exit code: 1 where rows are bad, 2 where nothing could be done."""
    asked = _parser().parse_args(argv)
    data = DataConfig(dataset_dir=asked.dir)
    try:
        return asked.run(data, asked)
    except Refused as refused:
        print(refused.report(), file=sys.stderr)
        return REFUSED


def _parser() -> argparse.ArgumentParser:
    parser = Parser("data")
    parser.add_argument("--dir", default="data", help="folder that holds dataset_info.json")
    commands = parser.add_subparsers(
        required=True, dest="command", metavar="list|validate|convert", parser_class=RefusingParser
    )
    listing = commands.add_parser("list", help="what there is: kinds and counts")
    listing.set_defaults(run=_list)
    checking = commands.add_parser("validate", help="each bad row of a dataset, with file, row and reason")
    checking.add_argument("name", help="row of dataset_info.json, or a file")
    checking.add_argument("--kind", choices=KINDS, help="kind of training; left out: any")
    checking.set_defaults(run=_validate)
    converting = commands.add_parser("convert", help="write a dataset in another format")
    converting.add_argument("name", help="row of dataset_info.json, or a file")
    converting.add_argument("--to", required=True, choices=sorted(WRITERS))
    converting.add_argument("--out", type=Path, help="file to write; left out: standard output")
    converting.set_defaults(run=_convert)
    return parser


def _list(data: DataConfig, asked: argparse.Namespace) -> int:
    table, folder = sources.table_of(data)
    if not table:
        raise Refused([Problem("--dir", data.dataset_dir, f"{folder} holds no dataset_info.json")])
    print(f"{folder.absolute()}")
    for name in table:
        try:
            source = sources.resolve(data, name, "dataset")[0]
            print(f"  {name:24} {_summary(source)}")
        except Refused as refused:
            print(f"  {name:24} {refused.problems[0]}")
    return DONE


def _summary(source: Source) -> str:
    """Format, kinds and number of rows."""
    if not source.files:
        return f"{source.format}, on a hub: {source.hub}"
    kinds: set[str] = set()
    count = bad = 0
    for read in _any_kind(source):
        count += 1
        if isinstance(read.row, BadRow):
            bad += 1
        else:
            kinds |= read.row.kinds()
    told = ", ".join(kind for kind in KINDS if kind in kinds) or "no kind"
    return f"{source.format}, {told}: {count} rows" + (f", {bad} bad" if bad else "")


def _any_kind(source: Source) -> Iterator[reader.Read]:
    """All rows, whatever they can serve."""
    try:
        yield from reader.rows(source, None, reader.read_files(source))
    except (files.Unreadable, OSError) as error:
        raise Refused([Problem("dataset", source.name, str(error))]) from None


def _one(data: DataConfig, name: str) -> Source:
    source = sources.resolve(data, name, "dataset")[0]
    if not source.files:
        raise Refused([Problem("dataset", name, "lies on a hub", "this command reads files only")])
    return source


def _validate(data: DataConfig, asked: argparse.Namespace) -> int:
    source = _one(data, asked.name)
    count = bad = 0
    try:
        for read in reader.rows(source, asked.kind, reader.read_files(source)):
            count += 1
            if isinstance(read.row, BadRow):
                bad += 1
                print(read.problem())
    except (files.Unreadable, OSError) as error:
        print(Problem(str(error), NO_VALUE, "the rest cannot be read"))
        bad += 1
    print(f"{source.name}: {count} rows, {bad} bad")
    return FAILED if bad or not count else DONE


def _convert(data: DataConfig, asked: argparse.Namespace) -> int:
    source = _one(data, asked.name)
    rows = [_sound(read) for read in _any_kind(source)]
    text = "".join(json.dumps(made, ensure_ascii=False) + "\n" for made in map(WRITERS[asked.to], rows))
    if asked.out is None:
        print(text, end="")
        return DONE
    if asked.out.exists():
        raise Refused([Problem("--out", asked.out, "exists already", "name a new file")])
    try:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(text, encoding="utf-8")
    except OSError as error:
        what = f"cannot be written: {error.strerror}"
        raise Refused([Problem("--out", asked.out, what, "name a file in a folder of yours")]) from None
    entry = json.dumps(_entry(asked.out, asked.to, rows))
    print(f"{asked.out}: {len(rows)} rows; for dataset_info.json: {entry}")
    return DONE


def _sound(read: reader.Read) -> Row:
    if isinstance(read.row, BadRow):
        raise Refused([read.problem()])
    return read.row


def _entry(out: Path, to: str, rows: Sequence[Row]) -> dict[str, object]:
    """The row of dataset_info.json that describes what was written."""
    made: dict[str, object] = {"file_name": out.name, "formatting": to}
    if rows and len(rows[0].answers) == 2:
        made["ranking"] = True
    return made
