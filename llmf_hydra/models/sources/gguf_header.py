"""Whether a GGUF file is whole, from its header: without torch, and without reading the weights.

Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Numbers are little-endian here; files for big-endian
machines aren't looked into.
"""

import struct
from pathlib import Path
from typing import BinaryIO

MAGIC = b"GGUF"
VERSIONS = (2, 3)
SIZES = {
    0: 1,
    1: 1,
    2: 2,
    3: 2,
    4: 4,
    5: 4,
    6: 4,
    7: 1,
    10: 8,
    11: 8,
    12: 8,
}  # of a value by its type, in bytes
TEXT, ARRAY = 8, 9
ALIGNMENT = "general.alignment"
DEFAULT_ALIGNMENT = 32
MOST_DIMENSIONS = 8


class Broken(Exception):
    """What is wrong with a file."""


def problem(file: Path) -> str | None:
    """What is wrong with a file: it isn't GGUF, or it ends before it should. None for one that is whole."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        if stream.read(len(MAGIC)) != MAGIC:
            return "is no GGUF file"
        try:
            _walk(stream, size)
        except Broken as broken:
            return str(broken)
    return None


def _walk(stream: BinaryIO, size: int) -> None:
    """Go through the header to the last tensor. Raises Broken."""
    version: int = _number(stream, "<I")
    if version not in VERSIONS:
        raise Broken(f"has the version {version} of GGUF, which is none of {', '.join(map(str, VERSIONS))}")
    tensors, values = _number(stream, "<Q"), _number(stream, "<Q")
    if not tensors:
        raise Broken("is a GGUF file without weights")
    alignment = DEFAULT_ALIGNMENT
    for _ in range(values):
        key = _text(stream, size)
        kind = _number(stream, "<I")
        if key == ALIGNMENT.encode() and kind == 4:
            alignment = _number(stream, "<I")
        else:
            _skip(stream, kind, size)
    last = 0
    for _ in range(tensors):
        _text(stream, size)
        dimensions: int = _number(stream, "<I")
        if dimensions > MOST_DIMENSIONS:
            raise Broken("is a broken GGUF file: its list of weights makes no sense")
        _forward(stream, 8 * dimensions + 4, size)
        last = max(last, _number(stream, "<Q"))
    start = -(-stream.tell() // max(alignment, 1)) * max(alignment, 1)
    if start + last >= size:
        raise Broken(f"is cut off: its weights reach beyond its {size:,} bytes")


def _number(stream: BinaryIO, form: str) -> int:
    data = stream.read(struct.calcsize(form))
    if len(data) < struct.calcsize(form):
        raise Broken("is cut off: it ends within its header")
    return struct.unpack(form, data)[0]


def _text(stream: BinaryIO, size: int) -> bytes:
    length = _number(stream, "<Q")
    if length > size - stream.tell():
        raise Broken("is cut off: it ends within its header")
    return stream.read(length)


def _skip(stream: BinaryIO, kind: int, size: int) -> None:
    if kind == TEXT:
        _forward(stream, _number(stream, "<Q"), size)
    elif kind == ARRAY:
        inner, count = _number(stream, "<I"), _number(stream, "<Q")
        if inner in SIZES:
            _forward(stream, SIZES[inner] * count, size)
            return
        for _ in range(min(count, size)):
            _skip(stream, inner, size)
    elif kind in SIZES:
        _forward(stream, SIZES[kind], size)
    else:
        raise Broken(f"is a broken GGUF file: there are no values of the type {kind}")


def _forward(stream: BinaryIO, by: int, size: int) -> None:
    if by > size - stream.tell():
        raise Broken("is cut off: it ends within its header")
    stream.seek(by, 1)
