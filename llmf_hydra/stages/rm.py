"""`stage=rm`: a reward model from preferences: a scalar head, and the pairwise loss of Bradley and Terry.

`-log sigmoid(r(x, c) - r(x, r))`, with the reward read at an answer's last token (Ouyang et al. 2022,
arXiv:2203.02155, eq. 1). Saved as a sequence classifier with one label.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NotRequired, TypedDict

import torch
from torch import nn
from torch.nn import functional as F

from llmf_hydra.methods.modules import scores
from llmf_hydra.models.scorer import last_token, scores_of_tokens
from llmf_hydra.training.batches import TrackedCollator
from llmf_hydra.training.context import RunContext
from llmf_hydra.training.pairs import (
    CHOSEN,
    PADDING,
    PROMPT,
    REJECTED,
    PairRow,
    model_inputs,
    padded,
    shares_prompt,
)
from llmf_hydra.training.trainer import StageTrainer


class ScoredBatch(TypedDict):
    """Pairs in one of the layouts of `pairs.py`, answers whole."""

    input_ids: torch.Tensor
    attention_mask: NotRequired[torch.Tensor]  # plain layout
    position_ids: NotRequired[torch.Tensor]  # shared layout
    side: NotRequired[torch.Tensor]  # shared layout
    ends: NotRequired[torch.Tensor]  # (pairs, 2), shared layout: where the scores are read


@dataclass(frozen=True)
class ScoredCollator:
    """Rows of `prompt_ids`, `chosen_ids`, `rejected_ids` in one of the layouts of `pairs.py`, answers whole.

    `ends` holds the position of the last token that isn't padding, as a sequence classifier reads its score.
    """

    pad_id: int
    shared: bool

    def __call__(self, rows: Sequence[PairRow]) -> ScoredBatch:
        """Shared: (pairs, longest), and `ends` (pairs, 2). Plain: (2 x pairs, longest), chosen answers first."""
        if self.shared:
            return self._shared(rows)
        ids = [
            [*row["prompt_ids"], *row[answer]] for answer in ("chosen_ids", "rejected_ids") for row in rows
        ]
        mask = padded([[1] * len(line) for line in ids], 0)
        return {"input_ids": padded(ids, self.pad_id), "attention_mask": mask}

    def tokens(self, row: PairRow) -> int:
        """The tokens of a pair that the model computes; a shared prompt counts once."""
        prompt, answers = len(row["prompt_ids"]), len(row["chosen_ids"]) + len(row["rejected_ids"])
        return prompt + answers if self.shared else 2 * prompt + answers

    def _shared(self, rows: Sequence[PairRow]) -> ScoredBatch:
        ids, positions, sides, ends = [], [], [], []
        for row in rows:
            prompt, good, bad = row["prompt_ids"], row["chosen_ids"], row["rejected_ids"]
            before = len(prompt)
            ids.append([*prompt, *good, *bad])
            positions.append([*range(before + len(good)), *range(before, before + len(bad))])
            sides.append([PROMPT] * before + [CHOSEN] * len(good) + [REJECTED] * len(bad))
            ends.append([self._end(prompt, good, before), self._end(prompt, bad, before + len(good))])
        return {
            "input_ids": padded(ids, self.pad_id),
            "position_ids": padded(positions, 0),
            "side": padded(sides, PADDING),
            "ends": torch.tensor(ends),
        }

    def _end(self, prompt: Sequence[int], answer: Sequence[int], start: int) -> int:
        """The column of the last token that isn't padding; the answer starts at column `start`."""
        at = last_token([*prompt, *answer], self.pad_id)
        return at if at < len(prompt) else start + at - len(prompt)


def score_answers(
    model: nn.Module, batch: ScoredBatch, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores of the chosen and the rejected answers, shape (pairs,) each, of a batch of either layout."""
    if "ends" not in batch:
        chosen, rejected = model(**batch, use_cache=False).logits.squeeze(-1).float().chunk(2)
        return chosen, rejected
    scores = scores_of_tokens(model, model_inputs(batch, dtype))
    chosen, rejected = scores.gather(1, batch["ends"]).unbind(dim=1)
    return chosen, rejected


class PairwiseTrainer(StageTrainer[ScoredBatch]):
    """The loss of Bradley and Terry on pairs of a chosen and a rejected answer."""

    def unreduced_loss(self, model: nn.Module, batch: ScoredBatch) -> torch.Tensor:
        chosen, rejected = score_answers(model, batch, self.context.activations)
        with torch.no_grad():
            self.note(
                accuracy=(chosen > rejected).float(),
                margin=chosen - rejected,
                rewards__chosen=chosen,
                rewards__rejected=rejected,
            )
        return -F.logsigmoid(chosen - rejected)


def build_trainer(context: RunContext) -> PairwiseTrainer:
    """The trainer of a sequence classifier with one label."""
    model = context.model
    collate = ScoredCollator(context.pad_id, scores(model) and shares_prompt(model))
    return PairwiseTrainer(context, TrackedCollator(collate, collate.tokens))
