"""Streaming: rows are read and tokenized while training goes on. Starts at once, whatever the size."""

import functools
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

from datasets import Features, IterableDataset

from llmf_hydra.config.data import Data
from llmf_hydra.data import files, reader, sources
from llmf_hydra.data.columns import schema
from llmf_hydra.data.features import Setup
from llmf_hydra.data.mix import mixed
from llmf_hydra.data.packing import SCHEMA, packed_stream
from llmf_hydra.data.report import DataReport, SourceReport
from llmf_hydra.data.table import Source
from llmf_hydra.data.tokenize import tokenized
from llmf_hydra.errors import Problem, Refused

Streams = IterableDataset | dict[str, IterableDataset] | None
_SMALL = 64  # rows tokenized at a time: the first batch must not wait for a thousand


def stream(
    data: Data, setup: Setup, named: list[tuple[str, Source]], seed: int, packing: bool
) -> tuple[IterableDataset, Streams, DataReport]:
    """Iterable datasets to train and to evaluate on. `data.val_size` first rows are held out.

    Raises Refused.
    """
    report = DataReport(setup.kind)
    parts: dict[str, dict[str, IterableDataset]] = {"train": {}, "eval": {}}
    for index, (use, source) in enumerate(named):
        report.sources.append(SourceReport(source.name, use))
        counts = report.sources[-1]
        parts[use][source.name] = _iterable(
            functools.partial(_rows, data, setup, source, index, counts), setup
        )
    train: IterableDataset = mixed(list(parts["train"].values()), data, seed)
    held: Streams = None
    if parts["eval"]:
        each = parts["eval"]
        held = (
            each
            if data.eval_on_each_dataset
            else _iterable(functools.partial(_all, list(each.values())), setup)
        )
    if data.val_size:
        count = int(data.val_size)
        train, held = train.skip(count), train.take(count)
    train = train.shuffle(seed=seed, buffer_size=data.buffer_size)
    if packing:
        held_rows = min(data.buffer_size, data.preprocessing_batch_size)
        packs = functools.partial(_packs, train, data.cutoff_len, data.neat_packing, held_rows)
        train = IterableDataset.from_generator(packs, features=Features.from_arrow_schema(SCHEMA))
    return train, held, report


def _iterable(rows: Any, setup: Setup) -> IterableDataset:
    import pyarrow as pa

    columns = schema(setup.kind, setup.media).append(pa.field("source", pa.int16()))
    return IterableDataset.from_generator(rows, features=Features.from_arrow_schema(columns))


def _rows(
    data: Data, setup: Setup, source: Source, index: int, counts: SourceReport
) -> Iterator[dict[str, Any]]:
    """Tokenized rows of one source. Raises Refused at the first bad row, unless bad rows are skipped."""
    raw = islice(reader.read_files(source), source.num_samples)
    raw = islice(raw, data.max_samples)
    try:
        for done in tokenized(setup, source, raw, min(_SMALL, data.preprocessing_batch_size)):
            counts.add(done.counts)
            if done.bad and not data.skip_bad_rows:
                raise Refused(sources.listed([read.problem() for read in done.bad]))
            for row in done.batch.to_pylist() if done.batch else ():
                yield {**row, "source": index}
    except files.Unreadable as error:
        raise Refused([Problem("data.dataset", source.name, str(error))]) from None


def _all(parts: list[IterableDataset]) -> Iterator[dict[str, Any]]:
    yield from chain.from_iterable(parts)


def _packs(rows: IterableDataset, capacity: int, neat: bool, held: int) -> Iterator[dict[str, Any]]:
    yield from packed_stream(iter(rows), capacity, neat, held)
