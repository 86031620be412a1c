"""The largest batches of a run, as its collators make them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset

from llmf_hydra.config.schema import Config
from llmf_hydra.data.prepare import Prepared
from llmf_hydra.data.tokenize.columns import row_lengths
from llmf_hydra.models.memory.step import Batch
from llmf_hydra.models.network import Network
from llmf_hydra.training.layout.rows import Layout, layout_of
from llmf_hydra.training.pairs import shares_prompt
from llmf_hydra.training.token_logprobs import IGNORED

Row = Mapping[str, Any]


def largest_batches(cfg: Config, rows: Prepared, model: Network) -> tuple[Batch, Batch | None]:
    """The batch of the longest rows of the training, and that of the evaluation, if there is one."""
    training = cfg.training
    train = _batch(cfg, rows, rows.train, training.per_device_train_batch_size, model)
    if not training.evaluates or rows.eval is None:
        return train, None
    parts = rows.eval.values() if isinstance(rows.eval, dict) else [rows.eval]
    found = [_batch(cfg, rows, part, training.per_device_eval_batch_size, model) for part in parts]
    return train, max(found, key=lambda batch: batch.lines * batch.length, default=None)


def _batch(cfg: Config, rows: Prepared, part: object, size: int, model: Network) -> Batch:
    if not isinstance(part, Dataset):  # a stream isn't known before
        return _filled(cfg, rows, size)
    chosen = np.argsort(row_lengths(part))[-size:]
    longest = [part[int(at)] for at in chosen]
    layout = layout_of(cfg, model)
    if cfg.stage.rows in ("text", "dialogue"):
        trained = sum(label != IGNORED for row in longest for label in row["labels"])
        lines = [(len(row["input_ids"]), 0) for row in longest]
        by_row = layout.by_row and cfg.data.ignore_pad_token_for_loss
        if by_row and cfg.block_diagonal:
            lines = [
                (length, 0) for row in longest for length in row.get("seq_lengths") or [len(row["input_ids"])]
            ]
        return _batch_of(lines, max(trained, 1), by_row=by_row)
    if cfg.stage.rows == "preference":
        return _pairs(longest, layout, shared=shares_prompt(model, layout))
    if cfg.stage.rows == "feedback":
        answers = sum(len(row["completion_ids"]) for row in longest)
        lines = [(len(row["prompt_ids"]) + len(row["completion_ids"]), 0) for row in longest]
        return _batch_of(lines, answers, by_row=layout.by_row)
    new, most = cfg.generation.max_new_tokens, max(len(row["prompt_ids"]) for row in longest)
    length = most + new if new else max(most + 1, cfg.generation.max_length)
    return Batch(len(longest), length, len(longest) * (length - most))


def _batch_of(lines: Sequence[tuple[int, int]], trained: int, *, by_row: bool) -> Batch:
    """A batch of lines, each with its length and prefix: below each other, or `by_row` end to end."""
    lengths, prefixes = zip(*lines, strict=True)
    if not by_row:
        return Batch(len(lines), max(lengths), trained)
    return Batch(1, sum(lengths), trained, lengths, prefixes)


def _pairs(rows: Sequence[Row], layout: Layout, *, shared: bool) -> Batch:
    """As `pairs.py` lays them out."""
    prompts, chosen, rejected = (
        [len(row[name]) for row in rows] for name in ("prompt_ids", "chosen_ids", "rejected_ids")
    )
    pairs = list(zip(prompts, chosen, rejected, strict=True))
    trained = sum(chosen) + sum(rejected)
    if not shared:
        lines = [(prompt + answer, 0) for prompt, *answers in pairs for answer in answers]
    elif layout.by_row:
        lines = [line for prompt, good, bad in pairs for line in ((prompt + good, 0), (bad, prompt))]
    else:
        lines = [(sum(pair), 0) for pair in pairs]
    return _batch_of(lines, trained, by_row=layout.by_row)


def _filled(cfg: Config, rows: Prepared, size: int) -> Batch:
    """Lines as long as they may be, of which as much is trained as of all rows."""
    sources = rows.report.sources
    tokens, trained = (
        sum(source.tokens for source in sources),
        sum(source.trained_tokens for source in sources),
    )
    length, share = cfg.data.cutoff_len, trained / tokens if tokens else 1.0
    lines = size * (2 if cfg.stage.rows == "preference" else 1)
    return Batch(lines, length, max(round(lines * length * share), 1))
