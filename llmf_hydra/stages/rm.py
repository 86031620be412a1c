"""`stage=rm`: a reward model from preferences: a scalar head, and the pairwise loss of Bradley and Terry.

`-log sigmoid(r(x, c) - r(x, r))`, with the reward read at an answer's last token (Ouyang et al. 2022,
arXiv:2203.02155, eq. 1). Saved as a sequence classifier with one label.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from trl import RewardConfig, RewardTrainer

from llmf_hydra.stages.pairs import padded
from llmf_hydra.stages.parts import Parts, shared_arguments, shared_callbacks
from llmf_hydra.stages.watched import KnownRows, Watched


@dataclass(frozen=True)
class AnswersCollator:
    """Rows of `prompt_ids`, `chosen_ids`, `rejected_ids` to (2 x pairs, longest): all chosen answers, then the rest."""

    pad_id: int

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        ids = [
            [*row["prompt_ids"], *row[answer]] for answer in ("chosen_ids", "rejected_ids") for row in rows
        ]
        return {
            "input_ids": padded(ids, self.pad_id),
            "attention_mask": padded([[1] * len(line) for line in ids], 0),
        }


class PairwiseTrainer(Watched, RewardTrainer):
    """TRL's trainer on pairs that are tokens already."""

    def weight(self, batch: Mapping[str, Any]) -> torch.Tensor:
        return torch.tensor(len(batch["rows"]))

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> torch.Tensor:
        chosen, rejected = model(**inputs, use_cache=False).logits.squeeze(-1).float().chunk(2)
        losses = -F.logsigmoid(chosen - rejected)
        with torch.no_grad():
            self.note(
                accuracy=(chosen > rejected).float(),
                margin=chosen - rejected,
                rewards__chosen=chosen,
                rewards__rejected=rejected,
            )
        return self.mean(losses, torch.tensor(len(losses)), num_items_in_batch)


def build_trainer(parts: Parts) -> PairwiseTrainer:
    """The trainer of a sequence classifier with one label."""
    arguments = RewardConfig(
        **shared_arguments(parts),
        max_length=None,  # the data engine has cut the rows already
        disable_dropout=False,  # the dropout that was asked for acts
    )
    collate = AnswersCollator(parts.pad_id)  # pyright: ignore
    return PairwiseTrainer(
        parts=parts,
        model=parts.model,
        args=arguments,
        data_collator=KnownRows(collate, ("prompt_ids", "chosen_ids", "prompt_ids", "rejected_ids")),
        train_dataset=parts.train,
        eval_dataset=parts.eval,
        processing_class=parts.tokenizer,
        callbacks=shared_callbacks(parts),
    )
