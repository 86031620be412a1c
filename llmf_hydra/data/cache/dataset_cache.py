"""The dataset cache: one source, tokenized, under its digest; made once, found afterwards."""

import dataclasses
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa

from llmf_hydra import paths
from llmf_hydra.config.groups.data import DataConfig
from llmf_hydra.data.cache import ranks, store
from llmf_hydra.data.report import SourceReport
from llmf_hydra.data.sources import files, reader, resolve
from llmf_hydra.data.sources.dataset_info import Source
from llmf_hydra.data.tokenize.batches import Tokenized
from llmf_hydra.data.tokenize.columns import schema
from llmf_hydra.data.tokenize.features import Setup
from llmf_hydra.data.tokenize.workers import tokenized_by
from llmf_hydra.errors import Problem, Refused

ROWS, REPORT, REJECTED = "rows.arrow", "report.json", "rejected.jsonl"


def cache_root() -> Path:
    """Where tokenized data is kept."""
    return paths.cache_dir() / "data"


def cached_source(data: DataConfig, setup: Setup, source: Source, name: str) -> tuple[Path, SourceReport]:
    """The folder with the rows of a source, and their report. Raises Refused."""

    folder, found = store.obtain(
        cache_root(),
        name,
        lambda folder: _make(data, setup, source, name, folder),
        again=data.overwrite_cache,
        maker=ranks.makes_data(data.data_shared_file_system),
    )
    report = SourceReport(**json.loads((folder / REPORT).read_text(encoding="utf-8")))
    return folder, dataclasses.replace(report, name=source.name, found=found)


def _make(data: DataConfig, setup: Setup, source: Source, name: str, folder: Path) -> None:
    """Tokenize a source into the three files of its folder. Raises Refused."""
    counts = SourceReport(source.name, digest=name)
    bad: list[Problem] = []
    with (
        # Half a surrogate pair is written as JSON escapes it.
        (folder / REJECTED).open("w", encoding="utf-8", errors="backslashreplace") as rejected,
        pa.OSFile(str(folder / ROWS), "wb") as sink,
        pa.ipc.new_stream(sink, schema(setup.kind, setup.media)) as arrow,
    ):
        for done in _batches(data, setup, source):
            counts.add(done.counts)
            for read in done.bad:
                rejected.write(json.dumps(read.to_dict(), ensure_ascii=False, default=str) + "\n")
            bad += [] if data.skip_bad_rows else [read.problem() for read in done.bad]
            if len(bad) >= resolve.SHOWN:
                break
            if done.batch:
                arrow.write_batch(done.batch)
    if bad:
        raise Refused(resolve.listed(bad))
    if not counts.rows_kept:
        raise Refused([_nothing_kept(source, counts)])
    (folder / REPORT).write_text(json.dumps(dataclasses.asdict(counts), indent=2), encoding="utf-8")


def _batches(data: DataConfig, setup: Setup, source: Source) -> Iterator[Tokenized]:
    raw = islice(reader.read_files(source), data.max_samples)
    try:
        yield from tokenized_by(
            setup, source, raw, data.preprocessing_batch_size, data.preprocessing_num_workers or 1
        )
    except (files.Unreadable, OSError) as error:
        raise Refused([Problem("data.dataset", source.name, str(error))]) from None


def _nothing_kept(source: Source, counts: SourceReport) -> Problem:
    why = "; ".join(line.strip() for line in counts.lines()[1:])
    what = f"has no row left of {counts.rows_read}"
    return Problem("data.dataset", source.name, what, why or f"{source.files[0]} is empty")
