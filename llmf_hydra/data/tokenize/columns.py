"""Examples as Arrow: one record batch a batch of rows, without a Python object a token."""

import json
from collections.abc import Sequence
from itertools import accumulate, chain
from typing import cast

import numpy as np
import pyarrow as pa
from datasets import Dataset

from llmf_hydra.data.rows import Row
from llmf_hydra.data.tokenize.features import TOKEN_COLUMNS, Example

IGNORED = -100
_AT_A_TIME = 10_000


def schema(kind: str, media: Sequence[str] = ()) -> pa.Schema:
    """Columns of a tokenized dataset of one kind, without `source`, which is known only beside others."""
    tokens = pa.list_(pa.int32())
    fields = [(name, tokens) for name in TOKEN_COLUMNS[kind]]
    if kind in ("text", "dialogue"):
        fields.append(("labels", tokens))
    if kind == "feedback":
        fields.append(("label", pa.bool_()))
    if kind == "prompt":
        fields.append(("columns", pa.string()))
    fields += [(name, pa.list_(pa.string())) for name in media]
    return pa.schema([*fields, ("row", pa.int64())])


def record_batch(
    kind: str, media: Sequence[str], examples: Sequence[Example], numbers: Sequence[int], rows: Sequence[Row]
) -> pa.RecordBatch:
    """Examples with the row that each came from, and its number."""
    columns: list[pa.Array] = []
    for name in TOKEN_COLUMNS[kind]:
        columns.append(_lists([example.ids[name] for example in examples]))
    if kind in ("text", "dialogue"):
        columns.append(_labels(columns[0], examples))
    if kind == "feedback":
        columns.append(pa.array([row.label for row in rows], pa.bool_()))
    if kind == "prompt":
        columns.append(pa.array([_columns(row) for row in rows], pa.string()))
    columns += [
        pa.array([(row.media or {}).get(name, []) for row in rows], pa.list_(pa.string())) for name in media
    ]
    columns.append(pa.array(numbers, pa.int64()))
    return pa.record_batch(columns, schema=schema(kind, media))


def _lists(rows: Sequence[list[int]]) -> pa.ListArray:
    offsets = np.fromiter(accumulate(map(len, rows), initial=0), np.int32, len(rows) + 1)
    values = np.fromiter(chain.from_iterable(rows), np.int32, offsets[-1])
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))


def _columns(row: Row) -> str:
    """The columns of a row as JSON, for the rewards of what is answered to it; `answer` is the reference answer."""
    answer = {} if row.reference is None else {"answer": row.reference}
    return json.dumps({**answer, **(row.columns or {})}, default=str)


def _labels(ids: pa.ListArray, examples: Sequence[Example]) -> pa.ListArray:
    values, starts = ids.values.to_numpy(), ids.offsets.to_numpy()
    labels = np.full(len(values), IGNORED, np.int32)
    for begin, example in zip(starts, examples, strict=False):
        for start, end in example.trained:
            labels[begin + start : begin + end] = values[begin + start : begin + end]
    return pa.ListArray.from_arrays(ids.offsets, pa.array(labels))


def as_arrow(rows: Dataset, indices: Sequence[int]) -> pa.Table:
    """Some rows of a tokenized dataset, each column in one chunk."""
    return cast("pa.Table", rows.with_format("arrow")[indices]).combine_chunks()


def row_lengths(rows: Dataset) -> np.ndarray:
    """Tokens of each row, shape (rows,), from the Arrow offsets; of ranked answers the longer counts."""
    parts = [
        _lengths(as_arrow(rows, range(start, min(start + _AT_A_TIME, len(rows)))))
        for start in range(0, len(rows), _AT_A_TIME)
    ]
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def _lengths(table: pa.Table) -> np.ndarray:
    names = [name for name in table.column_names if name.endswith("_ids")]
    first, *answers = [np.diff(table[name].chunk(0).offsets.to_numpy()) for name in names]
    return first + np.maximum.reduce(answers) if answers else first
