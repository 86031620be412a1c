"""What a reward is: it sees the answers and the rows that asked for them, and gives a score for each."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from transformers import PreTrainedTokenizerBase

from llmf_hydra.errors import TrainingFailed
from llmf_hydra.training.generation import Rollouts
from llmf_hydra.training.rewards.texts import texts

Row = Mapping[
    str, Any
]  # of the tokenized dataset: `prompt_ids`, `source`, `row`, and what else the data brings
SHOWN = 160  # characters of a prompt in an error


class Reward(Protocol):
    """Scores answers. A verifier compares them with a column of their rows; a model looks at the tokens alone."""

    @property
    def name(self) -> str:
        """What an error calls it: the parameter and the folder, hub name or URL that it names."""
        ...

    def __call__(self, rollouts: Rollouts, rows: Sequence[Row]) -> torch.Tensor:
        """A score per answer, (rows,) in float32 on the rollouts' device. `rows[i]` asked for answer i."""
        ...


def score(
    reward: Reward, rollouts: Rollouts, rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase
) -> torch.Tensor:
    """The scores of some answers, (rows,). Raises TrainingFailed for one that is not a finite number."""
    scores = reward(rollouts, rows)
    wrong = (~torch.isfinite(scores)).nonzero()
    if len(wrong):
        at = int(wrong[0])
        (prompt,), _ = texts(rollouts.rows(at, at + 1), tokenizer, skip_special_tokens=True)
        raise bad_score(reward.name, float(scores[at]), prompt)
    return scores


def bad_score(name: str, value: object, prompt: str) -> TrainingFailed:
    """The error for a score that is not a finite number, with the end of the prompt whose answer got it."""
    shown = prompt if len(prompt) <= SHOWN else f"...{prompt[-SHOWN:]}"
    return TrainingFailed(
        f"{name}: gave the score {json.dumps(value)[:40]}, which is not a finite number, "
        f"for the answer to the prompt {shown!r}"
    )
