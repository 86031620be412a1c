"""The largest batches of a run, as its collators make them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from llmf_hydra.config.schema import Config
from llmf_hydra.data.prepare import Prepared
from llmf_hydra.data.tokenize.columns import row_lengths
from llmf_hydra.models.memory.step import Batch, Batches, Generation
from llmf_hydra.models.network import Network
from llmf_hydra.training.layout.rows import Layout, layout_of
from llmf_hydra.training.pairs import shares_prompt
from llmf_hydra.training.token_logprobs import IGNORED

Row = Mapping[str, Any]
TILE = (4096, 32768)  # tokens and words of the vocabulary of which TRL's fused head makes logits at once
# What it takes for a tile, where another head takes 1 for as many logits: Triton's kernels work in place, and without
# them the backward pass holds nine pieces of a tile's size in float32, where another head's holds three.
OF_TILE = {True: 0.15, False: 3.0}


def largest_batches(cfg: Config, rows: Prepared, model: Network) -> Batches:
    """The batch of the longest rows of the training, and those of evaluation and generation, if there are such."""
    training = cfg.training
    if cfg.stage.name == "grpo":
        return _groups(cfg, rows, model)
    train = _batch(cfg, rows, rows.train, training.per_device_train_batch_size, model)
    if not training.evaluates or rows.eval is None:
        return Batches(train)
    parts = rows.eval.values() if isinstance(rows.eval, dict) else [rows.eval]
    found = [_batch(cfg, rows, part, training.per_device_eval_batch_size, model) for part in parts]
    return Batches(train, max(found, key=lambda batch: batch.lines * batch.length, default=None))


def _groups(cfg: Config, rows: Prepared, model: Network) -> Batches:
    """Of answers in groups, whose lines are as many as the batch says, however few the prompts are."""
    training, answer = cfg.training, cfg.generation.max_new_tokens
    held = rows.eval if training.evaluates else None
    parts = [rows.train, *(held.values() if isinstance(held, dict) else [held])]
    prompt = max(int(row_lengths(part).max(initial=1)) for part in parts if isinstance(part, Dataset))
    vocabulary = model.config.get_text_config().vocab_size

    def batch(lines: int) -> Batch:
        """The head's logits are made in tiles."""
        tile = min(lines * (prompt + answer), TILE[0]) * min(vocabulary, TILE[1])
        logits = round(tile * OF_TILE[torch.cuda.is_available()] / vocabulary)
        return Batch(lines, prompt + answer, max(logits, 1))

    train = training.per_device_train_batch_size
    evaluated = training.per_device_eval_batch_size if held is not None else 0
    steps = cfg.rlhf.steps_per_generation or training.gradient_accumulation_steps
    at_once = Generation(max(train * steps, evaluated), prompt, answer)
    return Batches(batch(train), batch(evaluated) if evaluated else None, at_once)


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
