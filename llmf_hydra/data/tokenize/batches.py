"""From raw rows to an Arrow file of tokens, batch by batch, in this process or in several."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

import pyarrow as pa

from llmf_hydra.data.chat.render import Rendered
from llmf_hydra.data.report import NAMED, SourceReport
from llmf_hydra.data.rows import BadRow, Row
from llmf_hydra.data.sources import reader
from llmf_hydra.data.sources.dataset_info import Source
from llmf_hydra.data.sources.reader import Read
from llmf_hydra.data.tokenize.columns import record_batch
from llmf_hydra.data.tokenize.features import Example, Setup

Raw = reader.RawRow


@dataclass(slots=True)
class Written:
    """A batch of rows as text, before its tokens are known."""

    rows: list[tuple[int, Row, list[Rendered]]] = field(default_factory=list)
    bad: list[Read] = field(default_factory=list)
    counts: SourceReport = field(default_factory=lambda: SourceReport(""))

    def texts(self) -> list[str]:
        """All texts of the batch in order."""
        return [text.text for _, _, texts in self.rows for text in texts]


@dataclass(slots=True)
class Tokenized:
    """A batch of rows as tokens; `batch` is None where no row is left."""

    batch: pa.RecordBatch | None
    bad: list[Read]
    counts: SourceReport


def write(setup: Setup, reads: Iterable[Read]) -> Written:
    """Bring a batch of rows into text; bad ones aside."""
    written = Written()
    counts = written.counts
    for read in reads:
        counts.rows_read += 1
        counts.files[str(read.file)] = counts.files.get(str(read.file), 0) + 1
        try:
            if isinstance(read.row, BadRow):
                raise read.row
            written.rows.append((read.number, read.row, setup.texts(read.row)))
            counts.rows_repeated += read.repeated_keys
        except Exception as error:  # a row may hold anything, and no row may end a run in a traceback
            bad = error if isinstance(error, BadRow) else reader.unforeseen(error)
            written.bad.append(Read(read.number, read.file, read.line, bad, read.raw))
    counts.rows_rejected = len(written.bad)
    counts.rejected = [bad.number for bad in written.bad[:NAMED]]
    return written


def finish(setup: Setup, written: Written, encodings: list[object]) -> Tokenized:
    """Tokens of a batch that was written; rows without a trained token are left out and counted."""
    counts, rest = written.counts, iter(encodings)
    examples: list[Example] = []
    numbers: list[int] = []
    sources: list[Row] = []
    for number, row, texts in written.rows:
        made = setup.examples(row, texts, list(islice(rest, len(texts))))
        kept = [example for example in made if example.trained_tokens]
        if not kept:
            counts.rows_untrained += 1
            counts.untrained = [*counts.untrained, number][:NAMED]
            continue
        _count_row(counts, setup, row, kept)
        for example in kept:
            counts.tokens_cut += example.lost
            counts.answers_cut += example.answers_cut
            counts.tokens += sum(map(len, example.ids.values()))
            counts.trained_tokens += example.trained_tokens
            counts.lengths += example.length
            counts.longest = max(counts.longest, example.length)
        examples += kept
        numbers += [number] * len(kept)
        sources += [row] * len(kept)
    batch = record_batch(setup.kind, setup.media, examples, numbers, sources) if examples else None
    return Tokenized(batch, written.bad, counts)


def _count_row(counts: SourceReport, setup: Setup, row: Row, kept: list[Example]) -> None:
    counts.rows_kept += 1
    counts.rows_cut += any(example.lost for example in kept)
    counts.rows_special += setup.says_special(row)
    counts.rows_equal += setup.kind == "preference" and row.answers[0] == row.answers[1]
    if setup.kind == "feedback":
        counts.rows_good += row.label is True
        counts.rows_bad += row.label is False


def tokenized(setup: Setup, source: Source, raw: Iterator[Raw], batch_size: int) -> Iterator[Tokenized]:
    """Batches in order. While Rust tokenizes one batch in a thread, the next is read and written here."""
    reads = reader.rows(source, setup.kind, raw)
    with ThreadPoolExecutor(1) as thread:
        waiting: tuple[Written, object] | None = None
        while batch := list(islice(reads, batch_size)):
            written = write(setup, batch)
            begun = (written, thread.submit(setup.encoder.batch, written.texts()))
            if waiting:
                yield finish(setup, waiting[0], waiting[1].result())
            waiting = begun
        if waiting:
            yield finish(setup, waiting[0], waiting[1].result())
