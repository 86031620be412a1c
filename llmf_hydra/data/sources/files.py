"""Reading of data files row by row: json, jsonl, csv, tsv, txt, parquet, arrow. Memory stays flat.

Each reader yields `(number, row)`, counted from 1, or `(number, BadRow)` for a row that cannot be read.
"""

import codecs
import csv
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from llmf_hydra.data.rows import BadRow

if TYPE_CHECKING:
    import pyarrow as pa

Item = tuple[int, dict[str, object] | BadRow]
BINARY = (".parquet", ".arrow")
_CHUNK = 1 << 20
_DIGITS = 4000  # of an integer; Python refuses to read or write more than 4300
_WHITE = " \t\r\n"


class Unreadable(Exception):
    """A file that cannot be read on from here, so that not even bad rows can be skipped."""


def read(path: Path) -> Iterator[Item]:
    """The rows of a file; its ending says how it is read. Raises Unreadable."""
    ending = path.suffix.lower()
    if ending not in BINARY:
        _refuse_utf16(path)
    return READERS[ending](path)


def _refuse_utf16(path: Path) -> None:
    """UTF-16 would give an error for each of its lines. Raises Unreadable."""
    with path.open("rb") as file:
        head = file.read(2)
    if head in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) or b"\0" in head:
        raise Unreadable("is UTF-16, not UTF-8; save the file as UTF-8")


def _jsonl(path: Path) -> Iterator[Item]:
    decoder = _Decoder()
    with path.open("rb") as lines:
        for number, raw in enumerate(lines, 1):
            if raw.isspace():
                continue
            yield number, _parsed(raw, decoder)


class RepeatedKeys(dict[str, object]):
    """A row with a key that stands twice in it, or in a mapping within it: the last value is taken."""


class _Decoder(json.JSONDecoder):
    """Decodes rows one after another, and notes what JSON allows and a row must not hold."""

    def __init__(self) -> None:
        super().__init__(object_pairs_hook=self._mapping, parse_int=self._integer)
        self._repeated, self._digits = False, 0

    def checked(self, row: object) -> dict[str, object] | BadRow:
        """The row that was just decoded, or what is wrong with it."""
        repeated, digits = self._repeated, self._digits
        self._repeated, self._digits = False, 0
        if digits:
            return BadRow("", f"holds a number of {digits} digits", "write it as a string")
        if not isinstance(row, dict):
            return _not_a_mapping(row)
        return RepeatedKeys(row) if repeated else row

    def _mapping(self, pairs: list[tuple[str, object]]) -> dict[str, object]:
        made = dict(pairs)
        self._repeated |= len(made) < len(pairs)
        return made

    def _integer(self, text: str) -> int:
        if len(text) > _DIGITS:
            self._digits = len(text)
            return 0
        return int(text)


def _parsed(raw: bytes, decoder: _Decoder) -> dict[str, object] | BadRow:
    try:
        row = decoder.decode(raw.decode("utf-8-sig") if raw.startswith(b"\xef\xbb\xbf") else raw.decode())
    except UnicodeDecodeError as error:
        return _not_utf8(error)
    except json.JSONDecodeError as error:
        return BadRow(
            "", f"is not valid JSON: {error.msg} at column {error.colno}", "correct or remove the line"
        )
    except RecursionError:
        return BadRow("", "is nested too deeply", "correct or remove the line")
    return decoder.checked(row)


def _not_utf8(error: UnicodeDecodeError) -> BadRow:
    byte = error.object[error.start]
    return BadRow("", f"is not UTF-8 (byte 0x{byte:02x} at {error.start})", "save the file as UTF-8")


def _not_a_mapping(row: object) -> BadRow:
    return BadRow("", f"is a {type(row).__name__}, not a mapping of columns", "write each row as {...}")


def _json(path: Path) -> Iterator[Item]:
    """An array of rows, or (as many files named .json are) a row a line."""
    with path.open("rb") as file:
        head = file.read(4096).lstrip(b"\xef\xbb\xbf").lstrip()
    if not head:
        raise Unreadable("is empty")
    return _array(path) if head.startswith(b"[") else _lines_or_object(path)


def _lines_or_object(path: Path) -> Iterator[Item]:
    items = list(_first_items(path))
    if items and isinstance(items[0][1], BadRow) and "not valid JSON" in items[0][1].what:
        raise Unreadable("is neither an array of rows nor a row a line")
    return _jsonl(path)


def _first_items(path: Path) -> Iterator[Item]:
    for item in _jsonl(path):
        yield item
        return


def _array(path: Path) -> Iterator[Item]:
    """The rows of a JSON array, decoded one by one from a buffer that holds a few at a time."""
    decoder = _Decoder()
    with path.open(encoding="utf-8-sig") as file:
        buffer, at, number, ended = _more(file, "", path), 0, 0, False
        at = buffer.index("[") + 1
        while True:
            at = _skip(buffer, at)
            if at < len(buffer) and buffer[at] == "]":
                _refuse_more(file, buffer[at + 1 :], path, number)
                return
            try:
                row, after = decoder.raw_decode(buffer, at)
                after = _skip(buffer, after)
                if after >= len(buffer):
                    raise json.JSONDecodeError("Unterminated array", buffer, after)
            except json.JSONDecodeError as error:
                if ended:
                    raise Unreadable(f"is not valid JSON: {error.msg} after row {number}") from None
                decoder.checked(None)  # what it noted of half a row
                more = _more(file, buffer[at:], path)
                ended, buffer, at = len(more) == len(buffer) - at, more, 0
                continue
            except RecursionError:
                raise Unreadable(f"is nested too deeply after row {number}") from None
            if buffer[after] not in ",]":
                raise Unreadable(f"is not valid JSON: a comma is missing after row {number + 1}")
            number, at = number + 1, after + (buffer[after] == ",")
            yield number, decoder.checked(row)


def _refuse_more(file: TextIO, rest: str, path: Path, number: int) -> None:
    """Nothing may follow the array. Raises Unreadable."""
    while not rest.strip() and (more := _more(file, "", path)):
        rest = more
    if rest.strip():
        what = f"goes on after its array ends with row {number}: {rest.strip()[:20]!r}"
        raise Unreadable(f"{what}; write one array, or a row a line in a file named .jsonl")


def _more(file: TextIO, rest: str, path: Path) -> str:
    """The rest of the buffer and what comes next; at least as much again, so that long rows stay linear."""
    try:
        return rest + file.read(max(_CHUNK, len(rest)))
    except UnicodeDecodeError as error:
        raise Unreadable(f"{_not_utf8(error).what}; save the file as UTF-8") from None


def _skip(buffer: str, at: int) -> int:
    while at < len(buffer) and buffer[at] in _WHITE:
        at += 1
    return at


def _table(delimiter: str) -> Callable[[Path], Iterator[Item]]:
    def read_table(path: Path) -> Iterator[Item]:
        csv.field_size_limit(1 << 30)
        with path.open(encoding="utf-8-sig", newline="") as file:
            try:
                rows = csv.DictReader(file, delimiter=delimiter, strict=True)
                _refuse_repeated(rows.fieldnames or ())
                for number, row in enumerate(rows, 1):
                    yield number, _checked_cells(row)
            except UnicodeDecodeError as error:
                raise Unreadable(f"{_not_utf8(error).what}; save the file as UTF-8") from None
            except csv.Error as error:
                raise Unreadable(f"is not a valid table: {error}") from None

    return read_table


def _refuse_repeated(header: Sequence[str]) -> None:
    """Of two columns with one name only the last could be read. Raises Unreadable."""
    repeated = next((name for name in header if list(header).count(name) > 1), None)
    if repeated is not None:
        raise Unreadable(f"names the column {repeated!r} twice in its header; rename or remove one")


def _checked_cells(row: dict[str | Any, Any]) -> dict[str, object] | BadRow:
    if None in row:
        return BadRow("", "has more cells than the header has columns", "quote cells that hold the separator")
    if None in row.values():
        return BadRow("", "has fewer cells than the header has columns", "fill in the missing cells")
    return row


def _txt(path: Path) -> Iterator[Item]:
    with path.open("rb") as lines:
        for number, raw in enumerate(lines, 1):
            if raw.isspace():
                continue
            try:
                yield number, {"text": raw.decode("utf-8-sig").rstrip("\r\n")}
            except UnicodeDecodeError as error:
                yield number, _not_utf8(error)


def _parquet(path: Path) -> Iterator[Item]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        batches = pq.ParquetFile(path).iter_batches(batch_size=1000)
        yield from _numbered(row for batch in batches for row in batch.to_pylist())
    except pa.ArrowInvalid as error:
        raise Unreadable(f"is not a Parquet file: {error}") from None


def _arrow(path: Path) -> Iterator[Item]:
    import pyarrow as pa

    with pa.memory_map(str(path)) as mapped:
        try:
            batches = list(_record_batches(mapped))
        except pa.ArrowInvalid as error:
            raise Unreadable(f"is not an Arrow file: {error}") from None
        yield from _numbered(row for batch in batches for row in batch.to_pylist())


def _record_batches(mapped: "pa.MemoryMappedFile") -> Iterator["pa.RecordBatch"]:
    """Both forms of Arrow on disk: the file with a footer, and the stream that `datasets` writes."""
    import pyarrow as pa

    try:
        reader = pa.ipc.open_file(mapped)
        return (reader.get_batch(i) for i in range(reader.num_record_batches))
    except pa.ArrowInvalid:
        mapped.seek(0)
        return iter(pa.ipc.open_stream(mapped))


def _numbered(rows: Iterator[dict[str, object]]) -> Iterator[Item]:
    yield from enumerate(rows, 1)


READERS: dict[str, Callable[[Path], Iterator[Item]]] = {
    ".json": _json,
    ".jsonl": _jsonl,
    ".csv": _table(","),
    ".tsv": _table("\t"),
    ".txt": _txt,
    ".parquet": _parquet,
    ".arrow": _arrow,
}
