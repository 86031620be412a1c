"""Packing: several rows in one sequence, chosen so that little of it stays empty."""

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset

from llmf_hydra.data.tokenize.columns import IGNORED, as_arrow, row_lengths

SCHEMA = pa.schema(
    [
        ("input_ids", pa.list_(pa.int32())),
        ("labels", pa.list_(pa.int32())),
        ("seq_lengths", pa.list_(pa.int32())),
        ("row", pa.list_(pa.int64())),
        ("source", pa.list_(pa.int16())),
    ]
)
_ROWS = pa.schema([*list(SCHEMA)[:2], ("row", pa.int64()), ("source", pa.int16())])
_AT_A_TIME = 500  # packs that are put together in memory


def best_fit_decreasing(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Packs of row indices: the longest rows first, each into the fullest pack that still has room for it.

    The rows of a pack, and the packs by their first row, stand in the order of the data. No length is above
    capacity.
    """
    by_room: dict[int, list[list[int]]] = {}  # room left -> packs that have just that
    rooms: list[int] = []  # the keys of by_room that have packs, in order
    for index in np.argsort(-np.asarray(lengths), kind="stable").tolist():
        length = int(lengths[index])
        at = bisect_left(rooms, length)
        if at < len(rooms):
            room = rooms[at]
            pack = by_room[room].pop()
            if not by_room[room]:
                del by_room[room], rooms[at]
        else:
            room, pack = capacity, []
        pack.append(index)
        left = room - length
        if left not in by_room:
            by_room[left] = []
            insort(rooms, left)
        by_room[left].append(pack)
    return sorted(sorted(pack) for packs in by_room.values() for pack in packs)


def write_packed(rows: Dataset, capacity: int, neat: bool, path: Path) -> dict[str, float]:
    """Pack a dataset into an Arrow file; returns the number of sequences and how full they are."""
    lengths = row_lengths(rows)
    packs = best_fit_decreasing(lengths.tolist(), capacity)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, SCHEMA) as arrow:
        for start in range(0, len(packs), _AT_A_TIME):
            some = packs[start : start + _AT_A_TIME]
            table = as_arrow(rows, [index for pack in some for index in pack])
            arrow.write_batch(packed_batch(table, some, neat))
    full = float(lengths.sum()) / (len(packs) * capacity) if packs else 0.0
    return {"sequences": len(packs), "full": round(full, 4)}


def packed_batch(table: pa.Table, packs: Sequence[Sequence[int]], neat: bool) -> pa.RecordBatch:
    """The rows of some packs joined; `table` holds them in the order of the packs, each column in one chunk.

    With `neat` the first token of each row is no target of a loss.
    """
    counts = np.cumsum([0, *map(len, packs)], dtype=np.int32)  # where each pack begins, in rows
    ids = table["input_ids"].chunk(0)
    starts = ids.offsets.to_numpy() - ids.offsets[0].as_py()  # where each row begins, in tokens
    labels = table["labels"].chunk(0).flatten().to_numpy().copy()
    if neat:
        labels[starts[:-1]] = IGNORED
    tokens = pa.array(starts[counts].astype(np.int32))
    per_row = pa.array(counts)
    columns = [
        pa.ListArray.from_arrays(tokens, ids.flatten()),
        pa.ListArray.from_arrays(tokens, pa.array(labels)),
        pa.ListArray.from_arrays(per_row, pa.array(np.diff(starts).astype(np.int32))),
        pa.ListArray.from_arrays(per_row, table["row"].chunk(0)),
        pa.ListArray.from_arrays(per_row, table["source"].chunk(0)),
    ]
    return pa.record_batch(columns, schema=SCHEMA)


def packed_stream(
    rows: Iterator[dict[str, Any]], capacity: int, neat: bool, held: int
) -> Iterator[dict[str, object]]:
    """Packs of a stream, `held` rows at a time."""
    while waiting := list(islice(rows, held)):
        packs = best_fit_decreasing([len(row["input_ids"]) for row in waiting], capacity)
        in_order = [waiting[index] for pack in packs for index in pack]
        table = pa.Table.from_pylist(in_order, schema=_ROWS).combine_chunks()
        yield from packed_batch(table, packs, neat).to_pylist()
