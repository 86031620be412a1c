"""The rows that `job=predict` answers or scores: their tokens in the order of the datasets, and their own answers."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from datasets import Dataset

from llmf_hydra.config.groups.data import DataConfig
from llmf_hydra.config.schema import Config
from llmf_hydra.data.prepare import prepare
from llmf_hydra.data.rows import BadRow, Row
from llmf_hydra.data.sources import hub, reader, resolve
from llmf_hydra.data.sources.dataset_info import Source
from llmf_hydra.errors import Problem, Refused
from llmf_hydra.serve.engine import Engine

TokenRow = Mapping[str, Any]


def tokenized(cfg: Config, engine: Engine, kind: str, out: Path) -> list[TokenRow]:
    """Tokens by row; `source` is the number of its dataset, `row` that in it, from 1. Raises Refused."""
    if engine.loaded.speech is None and kind != "text":
        what = "the tokenizer has no chat template of its own"
        raise Refused([Problem("data.template", None, what, "name the one that the model was tuned with")])
    data = answered(cfg.data)
    prepared = prepare(data, kind, engine.loaded.tokenizer, cfg.generation, cfg.training.seed, packing=False)
    prepared.write(out)
    rows: list[TokenRow] = list(cast("Any", cast("Dataset", prepared.train)))
    return sorted(rows, key=lambda row: (row["source"], row["row"]))  # num_samples of a dataset draws them


def answered(data: DataConfig) -> DataConfig:
    """The group, with the datasets to be answered under `dataset`: LLaMA-Factory names them by `eval_dataset`."""
    return data if data.dataset else replace(data, dataset=data.eval_dataset, eval_dataset=None)


def labels(cfg: Config, rows: Sequence[TokenRow]) -> dict[tuple[int, int], str]:
    """The answers that the datasets themselves give, of a pair the better one, by dataset and row."""
    wanted = {(row["source"], row["row"]) for row in rows}
    found: dict[tuple[int, int], str] = {}
    for number, source in enumerate(sources(cfg)):
        for read in reader.rows(source, None, reader.read_files(source)):
            if (number, read.number) in wanted and not isinstance(read.row, BadRow):
                label = _label(read.row)
                if label is not None:
                    found[number, read.number] = label
    return found


def hold_pairs(cfg: Config) -> bool:
    """Whether the first dataset holds pairs of answers."""
    source = sources(cfg)[0]
    rows = (read.row for read in reader.rows(source, None, reader.read_files(source)))
    return "preference" in next((row.kinds() for row in rows if not isinstance(row, BadRow)), set())


def sources(cfg: Config) -> list[Source]:
    """The datasets with their files and formats."""
    data = answered(cfg.data)
    named = resolve.resolve(data, str(data.dataset), "dataset")
    return [reader.settled_by_first_row(hub.fetched(source, "data.dataset")) for source in named]


def longest_first(rows: Sequence[Sequence[int]]) -> list[int]:
    """Numbers of rows, those of like length together: what doesn't fit into memory fails at once."""
    return sorted(range(len(rows)), key=lambda number: -len(rows[number]))


def digest(ids: Sequence[Sequence[int]]) -> str:
    """What decides the results beside the run's config."""
    return hashlib.sha256(json.dumps([list(one) for one in ids]).encode()).hexdigest()


def _label(row: Row) -> str | None:
    return str(row.answers[0][-1]["content"]) if row.answers and row.answers[0] else None
