"""Streaming: rows are read and tokenized while training goes on. Starts at once, whatever the size.

The buffer of the shuffle holds raw rows, so that it is full long before so many rows could be tokenized.
"""

import functools
import json
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, groupby, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Features, IterableDataset

from llmf_hydra.config.groups.data import DataConfig
from llmf_hydra.data.mix import concatenated, mixed
from llmf_hydra.data.packing import SCHEMA, packed_stream
from llmf_hydra.data.report import DataReport, SourceReport
from llmf_hydra.data.rows import BadRow
from llmf_hydra.data.sources import files, reader, resolve
from llmf_hydra.data.sources.dataset_info import Source
from llmf_hydra.data.tokenize.batches import finish, write
from llmf_hydra.data.tokenize.columns import schema
from llmf_hydra.data.tokenize.features import Setup
from llmf_hydra.errors import Problem, Refused

Streams = IterableDataset | dict[str, IterableDataset] | None
Encode = Callable[[dict[str, list[object]]], dict[str, list[object]]]
_SMALL = 64  # rows tokenized at a time: the first batch must not wait for a thousand
_RAW = pa.schema(
    [
        ("source", pa.int16()),
        ("number", pa.int64()),
        ("file", pa.string()),
        ("line", pa.int64()),
        ("raw", pa.string()),  # the row as JSON
        ("repeated_keys", pa.bool_()),
        ("bad", pa.string()),  # or what is wrong with it: field, fault and remedy as JSON
    ]
)


def stream(
    data: DataConfig, setup: Setup, named: list[tuple[str, Source]], seed: int, packing: bool
) -> tuple[IterableDataset, Streams, DataReport]:
    """Iterable datasets to train and to evaluate on. The first `data.val_size` rows are held out."""
    report = DataReport(
        setup.kind, [SourceReport(source.name, use) for use, source in named], notes=setup.notes
    )
    settled = [reader.settled_by_first_row(source) for _, source in named]
    encode = functools.partial(_tokenized, data, setup, settled, report)
    parts: dict[str, dict[str, IterableDataset]] = {"train": {}, "eval": {}}
    for index, (use, source) in enumerate(named):
        parts[use][source.name] = _raw_stream(data, settled[index], index)
    train: IterableDataset = mixed(list(parts["train"].values()), data, seed)
    raw_held = concatenated(list(parts["eval"].values())) if parts["eval"] else None
    if data.val_size:
        train, raw_held = train.skip(int(data.val_size)), train.take(int(data.val_size))
    held: Streams = _encoded(raw_held, encode, setup) if raw_held is not None else None
    if data.eval_on_each_dataset and parts["eval"]:
        held = {name: _encoded(part, encode, setup) for name, part in parts["eval"].items()}
    train = _encoded(
        train.shuffle(seed=seed, buffer_size=data.buffer_size, max_buffer_input_shards=1), encode, setup
    )
    if packing:
        packs = functools.partial(
            _packs, train, data.cutoff_len, data.neat_packing, data.preprocessing_batch_size
        )
        train = IterableDataset.from_generator(packs, features=Features.from_arrow_schema(SCHEMA))
    return train, held, report


def _raw_stream(data: DataConfig, source: Source, index: int) -> IterableDataset:
    rows = functools.partial(_raw_rows, data, source, index)
    return IterableDataset.from_generator(rows, features=Features.from_arrow_schema(_RAW))


def _raw_rows(data: DataConfig, source: Source, index: int) -> Iterator[dict[str, object]]:
    """The rows of a source as JSON, which Arrow can hold whatever they are."""
    limits = [limit for limit in (source.num_samples, data.max_samples) if limit is not None]
    try:
        raw_rows = islice(reader.read_files(source), min(limits, default=None))
        for number, (file, line, raw) in enumerate(raw_rows, 1):
            yield {"source": index, "number": number, "file": str(file), "line": line} | _as_json(raw)
    except files.Unreadable as error:
        raise Refused([Problem("data.dataset", source.name, str(error))]) from None


def _as_json(raw: dict[str, object] | BadRow) -> dict[str, object]:
    repeated = isinstance(raw, files.RepeatedKeys)
    if not isinstance(raw, BadRow):
        try:
            return {"raw": json.dumps(raw, default=str), "repeated_keys": repeated, "bad": None}
        except (TypeError, ValueError, RecursionError) as error:
            raw = reader.unforeseen(error)
    return {"raw": None, "repeated_keys": repeated, "bad": json.dumps([raw.field, raw.what, raw.remedy])}


def _encoded(rows: IterableDataset, encode: Encode, setup: Setup) -> IterableDataset:
    columns = schema(setup.kind, setup.media).append(pa.field("source", pa.int16()))
    return rows.map(
        encode,
        batched=True,
        batch_size=_SMALL,
        remove_columns=_RAW.names,
        features=Features.from_arrow_schema(columns),
    )


def _tokenized(
    data: DataConfig, setup: Setup, settled: list[Source], report: DataReport, batch: dict[str, list[object]]
) -> dict[str, list[object]]:
    """A batch of raw rows as columns of tokens. Raises Refused at a bad row, unless bad rows are skipped."""
    made: dict[str, list[object]] = {name: [] for name in [*schema(setup.kind, setup.media).names, "source"]}
    rows = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
    for index, group in groupby(rows, key=lambda row: row["source"]):
        written = write(setup, (_read(settled[index], setup.kind, row) for row in group))
        if written.bad and not data.skip_bad_rows:
            raise Refused(resolve.listed([read.problem() for read in written.bad]))
        done = finish(setup, written, setup.encoder.batch(written.texts()))
        report.sources[index].add(done.counts)
        columns = done.batch.to_pydict() if done.batch else {}
        for name, values in columns.items():
            made[name] += values
        made["source"] += [index] * (done.batch.num_rows if done.batch else 0)
    return made


def _read(source: Source, kind: str, row: Mapping[str, Any]) -> reader.Read:
    if row["bad"]:
        raw = BadRow(*json.loads(row["bad"]))
    else:
        raw = json.loads(row["raw"])
        raw = files.RepeatedKeys(raw) if row["repeated_keys"] else raw
    return reader.read_one(source, kind, row["number"], Path(row["file"]), row["line"], raw)


def _packs(rows: IterableDataset, capacity: int, neat: bool, held: int) -> Iterator[dict[str, object]]:
    yield from packed_stream(chain(rows), capacity, neat, held)
