"""Batches of preference pairs, and the log-probabilities of their answers.

Shared layout: `prompt, chosen, rejected`, in which the prompt is computed once. `rejected` takes up the positions where
the prompt ended, and sees the prompt but not `chosen`:

    tokens     p0 p1 p2 | p3 c0 c1 | p3 r0 r1      of the prompt p0-p3 and the answers c0-c2, r0-r2
    positions   0  1  2 |  3  4  5 |  3  4  5
    targets     -  -  - | c0 c1 c2 | r0 r1 r2
    side        0  0  0 |  1  1  1 |  2  2  2      each sees its own side and side 0

The prompt's last token stands before both answers, since it predicts the first token of both; an answer's last
token predicts nothing and is left out. Plain layout: `prompt, chosen` and `prompt, rejected`, as TRL computes them.

Where the model allows it (`layout/rows.py`) all lines of a batch lie end to end, and of a shared pair `prompt, chosen`
is one line and `rejected` another, which sees the prompt of the first: no padding is computed, and no mask of all
tokens by all is needed. Else a pair (shared) or an answer (plain) has a padded line. The numbers are the same
(tests/training/test_pairs.py, tests/training/test_rows_end_to_end.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, NotRequired, TypedDict, cast

import numpy as np
import torch
from peft import PeftModel
from torch import nn

from llmf_hydra.models.architecture.padding_free import has_positions
from llmf_hydra.models.network import Network
from llmf_hydra.training.context import attention_of
from llmf_hydra.training.layout.rows import PADDED, Layout, apart, model_inputs
from llmf_hydra.training.losses import Answers
from llmf_hydra.training.token_logprobs import IGNORED, places, token_log_probs

PROMPT, CHOSEN, REJECTED, PADDING = range(4)  # sides
Ids = Sequence[int]


class PairRow(TypedDict):
    """A tokenized pair; beside it stand `source` and `row`."""

    prompt_ids: Ids
    chosen_ids: Ids
    rejected_ids: Ids


class AnswerBatch(TypedDict):
    """Sequences of a prompt and its answer, (sequences, longest), or of a prompt and both its answers (shared), or all
    end to end, (1, tokens)."""

    input_ids: torch.Tensor
    targets: torch.Tensor
    trained: torch.Tensor  # (n,): the places of the answers' tokens in the flattened batch
    counts: tuple[int, ...]  # how many of them belong to each answer, in their order
    attention_mask: NotRequired[torch.Tensor]  # all but shared and padded
    position_ids: NotRequired[torch.Tensor]  # shared, or end to end
    side: NotRequired[torch.Tensor]  # shared and padded
    lengths: NotRequired[tuple[int, ...]]  # end to end: of the lines
    prefixes: NotRequired[tuple[int, ...]]  # end to end: tokens of the line before that a line also sees


def shares_prompt(model: Network, layout: Layout) -> bool:
    """Whether pairs are computed in the shared layout; else each answer gets a line with its own prompt.

    End to end it needs attention that is told the rows. Padded, it needs attention that takes a 4-D mask (sdpa and
    eager, not flash attention), positions that can be given, and attention over all that came before in every layer.
    """
    if layout.line:
        return layout.by_row
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    config = model.config.get_text_config().to_dict()
    windows = config.get("sliding_window"), *(config.get("layer_types") or ())
    whole = all(kind in (None, "full_attention") for kind in windows)
    return attention_of(model.config) in ("sdpa", "eager") and whole and has_positions(base)


@dataclass(frozen=True)
class PairCollator:
    """Rows of `prompt_ids`, `chosen_ids`, `rejected_ids` to tensors of one of the layouts. Answers stand in pairs, the
    chosen one first."""

    pad_id: int
    shared: bool
    layout: Layout = PADDED

    def __call__(self, rows: Sequence[PairRow]) -> AnswerBatch:
        """Shared: a line per pair, (pairs, longest), or two end to end. Plain: see `answer_batch`."""
        if not self.shared:
            prompts = [row["prompt_ids"] for row in rows for _ in range(2)]
            answers = [row[side] for row in rows for side in ("chosen_ids", "rejected_ids")]
            return answer_batch(prompts, answers, self.pad_id, self.layout)
        if self.layout.by_row:
            return end_to_end([line for row in rows for line in _lines_of_pair(row)], self.layout)
        prompts = [row["prompt_ids"] for row in rows]
        chosen = [row["chosen_ids"] for row in rows]
        rejected = [row["rejected_ids"] for row in rows]
        return self._shared(prompts, chosen, rejected)

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
        trained = padded(targets, IGNORED)
        return {
            "input_ids": padded(ids, self.pad_id),
            "targets": trained,
            "trained": places(trained),
            "counts": tuple(len(answer) for pair in zip(chosen, rejected, strict=True) for answer in pair),
            "position_ids": padded(positions, 0),
            "side": padded(sides, PADDING),
        }


class Line(NamedTuple):
    """A line of tokens, of which those with a target of IGNORED predict nothing; none has one where scores are read."""

    ids: Ids
    targets: Ids
    start: int = 0  # its first position
    prefix: int = 0  # tokens of the line before that it also sees


def _lines_of_pair(row: PairRow) -> tuple[Line, Line]:
    prompt, chosen, rejected = row["prompt_ids"], row["chosen_ids"], row["rejected_ids"]
    before = len(prompt) - 1
    return (
        Line([*prompt, *chosen[:-1]], [IGNORED] * before + [*chosen]),
        Line([prompt[-1], *rejected[:-1]], rejected, before, before),
    )


def answer_batch(
    prompts: Sequence[Ids], answers: Sequence[Ids], pad_id: int, layout: Layout = PADDED
) -> AnswerBatch:
    """A prompt and its answer per line, padded (lines, longest) or end to end (1, tokens)."""
    lines = [
        Line([*prompt, *answer[:-1]], [IGNORED] * (len(prompt) - 1) + [*answer])
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    if layout.line:
        return end_to_end(lines, layout)
    targets = padded([line.targets for line in lines], IGNORED)
    return {
        "input_ids": padded([line.ids for line in lines], pad_id),
        "targets": targets,
        "trained": places(targets),
        "counts": tuple(len(answer) for answer in answers),
        "attention_mask": padded([[1] * len(line.ids) for line in lines], 0),
    }


def end_to_end(lines: Sequence[Line], layout: Layout) -> AnswerBatch:
    """All lines in one, (1, tokens)."""
    ids = np.concatenate([np.asarray(line.ids, np.int64) for line in lines])
    targets = np.concatenate([np.asarray(line.targets, np.int64) for line in lines])
    positions = np.concatenate([np.arange(line.start, line.start + len(line.ids)) for line in lines])
    trained = torch.from_numpy(targets)[None]
    batch: AnswerBatch = {
        "input_ids": torch.from_numpy(ids)[None],
        "targets": trained,
        "trained": places(trained),
        "counts": tuple(sum(target != IGNORED for target in line.targets) for line in lines),
        "position_ids": torch.from_numpy(positions)[None],
        "lengths": tuple(len(line.ids) for line in lines),
    }
    if any(line.prefix for line in lines):
        batch["prefixes"] = tuple(line.prefix for line in lines)
    if layout.by_row:
        batch["attention_mask"] = torch.ones_like(batch["input_ids"])
    return batch


def padded(rows: Sequence[Ids], fill: int) -> torch.Tensor:
    """Lists of numbers as one tensor (rows, longest), filled up on the right."""
    made = np.full((len(rows), max(map(len, rows))), fill, np.int64)
    for line, row in zip(made, rows, strict=True):
        line[: len(row)] = row
    return torch.from_numpy(made)


COLUMNS = ("input_ids", "targets", "attention_mask", "position_ids", "side")


def rows_of(batch: Mapping[str, Any]) -> int:
    """How many lines a batch has."""
    return len(batch["lengths"]) if "lengths" in batch else len(batch["input_ids"])


def row_alone(batch: Mapping[str, Any], row: int, rows: int) -> AnswerBatch:
    """One of the `rows` rows of a batch, without the padding that the others need: what its collator makes of it
    alone."""
    answers = len(batch["counts"]) // rows
    counts = batch["counts"][row * answers : (row + 1) * answers]
    if "lengths" in batch:
        per_row = len(batch["lengths"]) // rows
        mine = slice(row * per_row, (row + 1) * per_row)
        start = sum(batch["lengths"][: mine.start])
        stop = start + sum(batch["lengths"][mine])
        alone = {name: batch[name][:, start:stop] for name in COLUMNS if name in batch}
        alone |= {name: batch[name][mine] for name in ("lengths", "prefixes") if name in batch}
    else:
        per_row = len(batch["input_ids"]) // rows
        lines = {name: batch[name][row * per_row : (row + 1) * per_row] for name in COLUMNS if name in batch}
        held = lines["side"] != PADDING if "side" in lines else lines["attention_mask"] == 1
        width = int(held.sum(dim=1).max())
        alone = {name: value[:, :width] for name, value in lines.items()}
    return cast("AnswerBatch", {**alone, "trained": places(alone["targets"]), "counts": counts})


def side_mask(side: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Sides (pairs, length) as a mask (pairs, 1, length, length).

    0 where a token (the line) sees another (the column), else the least number.
    """
    same = (side[:, :, None] == side[:, None, :]) | (side[:, None, :] == PROMPT)
    sees = same & torch.ones(same.shape[-2:], dtype=torch.bool, device=side.device).tril()
    mask = torch.zeros(same.shape, dtype=dtype, device=side.device)
    return mask.masked_fill(~sees, torch.finfo(dtype).min).unsqueeze(1)


def inputs_of(batch: Mapping[str, Any], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """What a model takes of a batch of any layout; `dtype` is that of its activations."""
    inputs = model_inputs(batch)
    return inputs | ({"attention_mask": side_mask(batch["side"], dtype)} if "side" in batch else {})


def answer_log_probs(model: nn.Module, batch: AnswerBatch, dtype: torch.dtype) -> torch.Tensor:
    """Log-probability of each answer of a batch, shape (answers,), in their order."""
    with apart(batch):
        tokens = token_log_probs(model, inputs_of(batch, dtype), batch["targets"], batch["trained"])
    values = tokens.log_probs.flatten()[batch["trained"]]
    return torch.stack([answer.sum() for answer in values.split(batch["counts"])])


def pair_log_probs(model: nn.Module, batch: AnswerBatch, dtype: torch.dtype) -> Answers:
    """Log-probabilities of both answers of each pair, of a batch that `PairCollator` made."""
    sums = answer_log_probs(model, batch, dtype)
    counts = torch.tensor(batch["counts"]).to(sums.device, non_blocking=True)
    return Answers(sums[0::2], sums[1::2], counts[0::2], counts[1::2])
