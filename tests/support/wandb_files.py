"""The log of an offline wandb run, read from its file."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wandb.proto.wandb_internal_pb2 import Record

BLOCK = 32768  # bytes of a block of wandb's log, which has LevelDB's format


def logs(out: Path) -> list[Path]:
    """The files of a run's folder, oldest first; a resumed run has one of its own."""
    return sorted(out.glob("wandb/offline-run-*/run-*.wandb"))


def records(out: Path) -> "list[Record]":
    """The records of the one offline run in a folder."""
    (log,) = logs(out)
    return of_file(log)


def of_file(log: Path) -> "list[Record]":
    """The records of one file."""
    from wandb.proto.wandb_internal_pb2 import Record  # half a second, in each process of the tests

    return [Record.FromString(part) for part in chunks(log.read_bytes())]


def history(log: Path) -> list[dict[str, Any]]:
    """The rows of metrics in a file, with the step as `_step`."""
    return [
        {item.nested_key[0] or item.key: json.loads(item.value_json) for item in record.history.item}
        for record in of_file(log)
        if record.HasField("history")
    ]


def chunks(data: bytes) -> Iterator[bytes]:
    at, whole = 7, b""  # behind the file's own header
    while at + 7 <= len(data):
        left = BLOCK - at % BLOCK
        length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        if left < 7 or kind == 0:  # padding up to the next block
            at += left
            continue
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # the whole record, or its last part
            yield whole
            whole = b""
