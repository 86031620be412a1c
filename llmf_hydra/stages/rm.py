"""`stage=rm`: a reward model from preferences: a scalar head, and the pairwise loss of Bradley and Terry.

`-log sigmoid(r(x, c) - r(x, r))`, with the reward read at an answer's last token (Ouyang et al. 2022,
arXiv:2203.02155, eq. 1). Saved as a sequence classifier with one label.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NotRequired, TypedDict, cast

import torch
from torch import nn
from torch.nn import functional as F

from llmf_hydra.methods.modules import scores
from llmf_hydra.models.scorer import last_token, scores_of_tokens
from llmf_hydra.training.batches import TrackedCollator
from llmf_hydra.training.context import RunContext
from llmf_hydra.training.layout.rows import PADDED, Layout, apart, layout_of
from llmf_hydra.training.pairs import (
    CHOSEN,
    PADDING,
    PROMPT,
    REJECTED,
    Line,
    PairRow,
    end_to_end,
    inputs_of,
    padded,
    shares_prompt,
)
from llmf_hydra.training.trainer import StageTrainer

ANSWERS = ("chosen_ids", "rejected_ids")


class ScoredBatch(TypedDict):
    """Pairs in one of the layouts of `pairs.py`, answers whole."""

    input_ids: torch.Tensor
    ends: NotRequired[
        torch.Tensor
    ]  # (pairs x 2,): the scores' places in the flattened batch; not where plain and padded
    attention_mask: NotRequired[torch.Tensor]  # all but shared and padded
    position_ids: NotRequired[torch.Tensor]  # shared, or end to end
    side: NotRequired[torch.Tensor]  # shared and padded
    lengths: NotRequired[tuple[int, ...]]  # end to end: of the lines
    prefixes: NotRequired[tuple[int, ...]]  # end to end: tokens of the line before that a line also sees


@dataclass(frozen=True)
class ScoredCollator:
    """Rows of `prompt_ids`, `chosen_ids`, `rejected_ids` in one of the layouts of `pairs.py`, answers whole.

    `ends` holds the place of the last token that isn't padding, as a sequence classifier reads its score.
    """

    pad_id: int
    shared: bool
    layout: Layout = PADDED

    def __call__(self, rows: Sequence[PairRow]) -> ScoredBatch:
        """End to end: (1, tokens). Shared: (pairs, longest). Plain: (2 x pairs, longest), without `ends`."""
        if self.layout.line:
            return self._end_to_end(rows)
        if self.shared:
            return self._shared(rows)
        ids = [[*row["prompt_ids"], *row[answer]] for row in rows for answer in ANSWERS]
        mask = padded([[1] * len(line) for line in ids], 0)
        return {"input_ids": padded(ids, self.pad_id), "attention_mask": mask}

    def tokens(self, row: PairRow) -> int:
        """The tokens of a pair that the model computes; a shared prompt counts once."""
        prompt, answers = len(row["prompt_ids"]), len(row["chosen_ids"]) + len(row["rejected_ids"])
        return prompt + answers if self.shared else 2 * prompt + answers

    def _end_to_end(self, rows: Sequence[PairRow]) -> ScoredBatch:
        lines: list[Line] = []
        ends: list[int] = []
        start = 0  # of the line
        for row in rows:
            prompt, before = row["prompt_ids"], len(row["prompt_ids"])
            for number, answer in enumerate(ANSWERS):
                last = last_token([*prompt, *row[answer]], self.pad_id)
                rest = self.shared and number == 1
                if rest:  # a score in the prompt is read in the first line
                    ends.append(
                        start + last - before if last >= before else start - len(lines[-1].ids) + last
                    )
                    lines.append(Line(row[answer], (), before, before))
                else:
                    ends.append(start + last)
                    lines.append(Line([*prompt, *row[answer]], ()))
                start += len(lines[-1].ids)
        whole = end_to_end(lines, self.layout)
        made = {name: value for name, value in whole.items() if name not in ("targets", "trained", "counts")}
        return cast("ScoredBatch", {**made, "ends": torch.tensor(ends)})

    def _shared(self, rows: Sequence[PairRow]) -> ScoredBatch:
        ids, positions, sides, ends = [], [], [], []
        for row in rows:
            prompt, good, bad = row["prompt_ids"], row["chosen_ids"], row["rejected_ids"]
            before = len(prompt)
            ids.append([*prompt, *good, *bad])
            positions.append([*range(before + len(good)), *range(before, before + len(bad))])
            sides.append([PROMPT] * before + [CHOSEN] * len(good) + [REJECTED] * len(bad))
            ends.append([self._end(prompt, good, before), self._end(prompt, bad, before + len(good))])
        made = padded(ids, self.pad_id)
        starts = torch.arange(len(rows)).unsqueeze(1) * made.shape[1]
        return {
            "input_ids": made,
            "position_ids": padded(positions, 0),
            "side": padded(sides, PADDING),
            "ends": (torch.tensor(ends) + starts).flatten(),
        }

    def _end(self, prompt: Sequence[int], answer: Sequence[int], start: int) -> int:
        """The column of the last token that isn't padding; the answer starts at column `start`."""
        at = last_token([*prompt, *answer], self.pad_id)
        return at if at < len(prompt) else start + at - len(prompt)


def score_answers(
    model: nn.Module, batch: ScoredBatch, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores of the chosen and the rejected answers, shape (pairs,) each, of a batch of any layout."""
    inputs = inputs_of(batch, dtype)
    if "ends" in batch:
        with apart(batch):
            scores = scores_of_tokens(model, inputs).flatten()[batch["ends"]]
    else:
        scores = model(**inputs, use_cache=False).logits.squeeze(-1).float()
    return scores[0::2], scores[1::2]


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
    layout = layout_of(context.cfg, model)
    if layout.line and not scores(model):  # it can't be told where to read them
        layout = Layout(f"a {model.config.model_type} model reads the score at the end of a padded line")
    collate = ScoredCollator(context.pad_id, scores(model) and shares_prompt(model, layout), layout)
    return PairwiseTrainer(context, TrackedCollator(collate, collate.tokens), layout)
