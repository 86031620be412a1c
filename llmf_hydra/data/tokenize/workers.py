"""Tokenizing in several processes: batches go out, and come back in their order."""

import multiprocessing
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice

from llmf_hydra.data.sources import reader
from llmf_hydra.data.sources.dataset_info import Source
from llmf_hydra.data.tokenize.batches import Raw, Tokenized, finish, tokenized, write
from llmf_hydra.data.tokenize.features import Setup

_state: list[tuple[Setup, Source]] = []  # of a worker: given once instead of with each batch


def tokenized_by(
    setup: Setup, source: Source, raw: Iterator[Raw], batch_size: int, processes: int
) -> Iterator[Tokenized]:
    """All rows of a source in batches, by this process (with threads in Rust) or by several."""
    source = reader.settled_by_first_row(source)
    if processes == 1:
        yield from tokenized(setup, source, raw, batch_size)
        return
    ways = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(ways)
    with ProcessPoolExecutor(processes, context, _begin, (setup, source)) as pool:
        waiting: deque[Future[Tokenized]] = deque()
        start = 1
        while batch := list(islice(raw, batch_size)):
            waiting.append(pool.submit(_one, batch, start))
            start += len(batch)
            if len(waiting) > 2 * processes:  # enough to keep all busy, few enough to keep memory flat
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _begin(setup: Setup, source: Source) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    _state[:] = [(setup, source)]


def _one(batch: list[Raw], start: int) -> Tokenized:
    ((setup, source),) = _state
    written = write(setup, reader.rows(source, setup.kind, iter(batch), start))
    return finish(setup, written, setup.encoder.batch(written.texts()))
