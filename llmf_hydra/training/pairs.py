"""Batches of preference pairs, and the log-probabilities of their answers.

Shared layout: one line a pair, `prompt, chosen, rejected`, in which the prompt is computed once. `rejected`
takes up the positions where the prompt ended, and sees the prompt but not `chosen`:

    tokens     p0 p1 p2 | p3 c0 c1 | p3 r0 r1      of the prompt p0-p3 and the answers c0-c2, r0-r2
    positions   0  1  2 |  3  4  5 |  3  4  5
    targets     -  -  - | c0 c1 c2 | r0 r1 r2
    side        0  0  0 |  1  1  1 |  2  2  2      each sees its own side and side 0

The prompt's last token stands before both answers, since it predicts the first token of both; an answer's last
token predicts nothing and is left out. Plain layout: two lines a pair, `prompt, chosen` and `prompt, rejected`,
as TRL computes them. The numbers are the same (tests/stages/test_pairs.py).
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict, cast

import numpy as np
import torch
from peft import PeftModel
from torch import nn

from llmf_hydra.models.network import Network
from llmf_hydra.training.context import attention_of
from llmf_hydra.training.losses import Answers
from llmf_hydra.training.token_logprobs import IGNORED, token_log_probs

PROMPT, CHOSEN, REJECTED, PADDING = range(4)  # sides
Ids = Sequence[int]


class PairRow(TypedDict):
    """A tokenized pair; beside it stand `source` and `row`."""

    prompt_ids: Ids
    chosen_ids: Ids
    rejected_ids: Ids


class AnswerBatch(TypedDict):
    """Sequences of a prompt and its answer, (sequences, longest), or of a prompt and both its answers (shared)."""

    input_ids: torch.Tensor
    targets: torch.Tensor
    attention_mask: NotRequired[torch.Tensor]  # plain layout
    position_ids: NotRequired[torch.Tensor]  # shared layout
    side: NotRequired[torch.Tensor]  # shared layout


def shares_prompt(model: Network) -> bool:
    """Whether pairs are computed in the shared layout; else each answer gets a line with its own prompt.

    It needs attention that takes a 4-D mask (sdpa and eager, not flash attention), positions that can be
    given, and attention over all that came before in every layer.
    """
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    config = model.config.get_text_config().to_dict()
    windows = config.get("sliding_window"), *(config.get("layer_types") or ())
    whole = all(kind in (None, "full_attention") for kind in windows)
    takes_positions = "position_ids" in inspect.signature(type(base).forward).parameters
    return attention_of(model.config) in ("sdpa", "eager") and whole and takes_positions


@dataclass(frozen=True)
class PairCollator:
    """Rows of `prompt_ids`, `chosen_ids`, `rejected_ids` to tensors of one of the two layouts."""

    pad_id: int
    shared: bool

    def __call__(self, rows: Sequence[PairRow]) -> AnswerBatch:
        """Shared, (pairs, longest): `input_ids`, `targets`, `position_ids`, `side`. Plain: see `answer_batch`, with all
        chosen answers before all rejected ones."""
        prompts = [row["prompt_ids"] for row in rows]
        chosen = [row["chosen_ids"] for row in rows]
        rejected = [row["rejected_ids"] for row in rows]
        if self.shared:
            return self._shared(prompts, chosen, rejected)
        return answer_batch(prompts * 2, chosen + rejected, self.pad_id)

    def tokens(self, row: PairRow) -> int:
        """The tokens of a pair that the model computes; a shared prompt counts once."""
        prompt, answers = len(row["prompt_ids"]), len(row["chosen_ids"]) + len(row["rejected_ids"])
        return prompt - 1 + answers if self.shared else 2 * (prompt - 1) + answers

    def _shared(self, prompts: Sequence[Ids], chosen: Sequence[Ids], rejected: Sequence[Ids]) -> AnswerBatch:
        ids, targets, positions, sides = [], [], [], []
        for prompt, good, bad in zip(prompts, chosen, rejected, strict=True):
            before, last = len(prompt) - 1, prompt[-1]
            ids.append([*prompt[:-1], last, *good[:-1], last, *bad[:-1]])
            targets.append([IGNORED] * before + [*good, *bad])
            ends = range(before + len(good)), range(before, before + len(bad))
            positions.append([*ends[0], *ends[1]])
            sides.append([PROMPT] * before + [CHOSEN] * len(good) + [REJECTED] * len(bad))
        return {
            "input_ids": padded(ids, self.pad_id),
            "targets": padded(targets, IGNORED),
            "position_ids": padded(positions, 0),
            "side": padded(sides, PADDING),
        }


def answer_batch(prompts: Sequence[Ids], answers: Sequence[Ids], pad_id: int) -> AnswerBatch:
    """A prompt and its answer a line, shape (lines, longest): `input_ids`, `targets`, `attention_mask`."""
    ids = [[*prompt, *answer[:-1]] for prompt, answer in zip(prompts, answers, strict=True)]
    targets = [[IGNORED] * (len(p) - 1) + [*a] for p, a in zip(prompts, answers, strict=True)]
    return {
        "input_ids": padded(ids, pad_id),
        "targets": padded(targets, IGNORED),
        "attention_mask": padded([[1] * len(line) for line in ids], 0),
    }


def padded(rows: Sequence[Ids], fill: int) -> torch.Tensor:
    """Lists of numbers as one tensor (rows, longest), filled up on the right."""
    made = np.full((len(rows), max(map(len, rows))), fill, np.int64)
    for line, row in zip(made, rows, strict=True):
        line[: len(row)] = row
    return torch.from_numpy(made)


INPUTS = ("input_ids", "targets", "attention_mask", "position_ids", "side")


def row_alone(batch: Mapping[str, Any], row: int, rows: int) -> AnswerBatch:
    """One of the `rows` rows of a batch, without the padding that the others need: what its collator makes of it
    alone."""
    lines = {name: batch[name][row::rows] for name in INPUTS if name in batch}
    held = lines["side"] != PADDING if "side" in lines else lines["attention_mask"] == 1
    width = int(held.sum(dim=1).max())
    return cast("AnswerBatch", {name: value[:, :width] for name, value in lines.items()})


def side_mask(side: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Sides (pairs, length) as a mask (pairs, 1, length, length).

    0 where a token (the line) sees another (the column), else the least number.
    """
    same = (side[:, :, None] == side[:, None, :]) | (side[:, None, :] == PROMPT)
    sees = same & torch.ones(same.shape[-2:], dtype=torch.bool, device=side.device).tril()
    mask = torch.zeros(same.shape, dtype=dtype, device=side.device)
    return mask.masked_fill(~sees, torch.finfo(dtype).min).unsqueeze(1)


def model_inputs(batch: Mapping[str, Any], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """What a model takes of a batch of either layout; `dtype` is that of its activations."""
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "position_ids") if name in batch}
    return inputs | ({"attention_mask": side_mask(batch["side"], dtype)} if "side" in batch else {})


def answer_log_probs(model: nn.Module, batch: AnswerBatch, dtype: torch.dtype) -> torch.Tensor:
    """Log-probability of each line's answer, shape (lines,), of a batch that `answer_batch` made."""
    return token_log_probs(model, model_inputs(batch, dtype), batch["targets"]).log_probs.sum(dim=1)


def pair_log_probs(model: nn.Module, batch: AnswerBatch, dtype: torch.dtype) -> Answers:
    """Log-probabilities of both answers of each pair, of a batch of either layout."""
    log_probs = token_log_probs(model, model_inputs(batch, dtype), batch["targets"]).log_probs
    trained = batch["targets"] != IGNORED
    if "side" in batch:
        sides = [batch["side"] == CHOSEN, batch["side"] == REJECTED]
        sums, counts = [(log_probs * side).sum(dim=1) for side in sides], [side.sum(dim=1) for side in sides]
    else:
        sums, counts = log_probs.sum(dim=1).chunk(2), trained.sum(dim=1).chunk(2)
    return Answers(*sums, *counts)
