"""The loss of a step is the formula of its paper, computed here from the stored answers, one at a time."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.grpo_runs import SHORT, grouped, log_probs, sums, table
from transformers import TrainerCallback

Build = Callable[..., Any]
TEMPERATURE, BETA, LOW, HIGH, MOST = 0.8, 0.3, 0.02, 0.03, 6
LARGEST = 1.01  # ratio of cispo
STEP = 0.01  # of all weights: the norm of the clipped gradient, at a rate of 1
WORDS = ["method=full", *SHORT, "optimizer=sgd", f"training.max_grad_norm={STEP}", "training.learning_rate=1",
         "training.lr_scheduler_type=constant", "rlhf.num_iterations=2", f"generation.temperature={TEMPERATURE}",
         f"rlhf.beta={BETA}", f"rlhf.epsilon={LOW}"]  # fmt: skip


class Snapshots(TrainerCallback):
    """The model before each step, and what the step was trained on."""

    def __init__(self) -> None:
        self.models: list[torch.nn.Module] = []

    def on_step_begin(self, *_: Any, model: Any, **__: Any) -> None:
        kept = copy.deepcopy(model)
        kept.forward = type(kept).forward.__get__(kept)  # without TRL's head
        self.models.append(kept.eval())


def by_hand(
    loss_type: str, models: list[Any], answers: list[tuple[list[int], list[int]]], rewards: torch.Tensor
) -> float:
    """The loss of the second step on the same answers, from the models before the first and the second."""
    with torch.no_grad():
        old, new = ([log_probs(model, *answer, TEMPERATURE) for answer in answers] for model in models)
    ref = old  # the run's start
    if loss_type == "rloo":  # the first step's policy is the reference, so its KL is 0 in the reward
        others = (rewards.sum(dim=1, keepdim=True) - rewards) / (rewards.shape[1] - 1)
        advantages = (rewards - others).flatten()
        ratios = torch.stack([(a - b).sum().exp() for a, b in zip(new, old, strict=True)])
        clipped = ratios.clamp(1 - LOW, 1 + HIGH)
        assert (clipped != ratios).any()
        return float(-torch.minimum(ratios * advantages, clipped * advantages).mean())
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    if loss_type != "dr_grpo":
        centred = centred / (rewards.std(dim=1, keepdim=True) + 1e-4)
    terms = []
    for at, advantage in enumerate(centred.flatten()):
        ratio = (new[at] - old[at]).exp()
        clipped = ratio.clamp(1 - LOW, 1 + HIGH)
        kl = (ref[at] - new[at]).exp() - (ref[at] - new[at]) - 1
        surrogate = torch.minimum(ratio * advantage, clipped * advantage)
        if loss_type == "cispo":
            surrogate = ratio.clamp(max=LARGEST) * advantage * new[at]
        terms.append(-surrogate + BETA * kl * ratio)
    ratios = torch.cat([(a - b).exp() for a, b in zip(new, old, strict=True)])
    assert (ratios < 1 - LOW).any() and (ratios > 1 + HIGH).any()  # both bounds act
    if loss_type == "grpo":
        return float(torch.stack([term.mean() for term in terms]).mean())
    if loss_type == "luspo":
        return float(torch.stack([term.sum() for term in terms]).mean())
    total = torch.cat(terms).sum()
    return float(total / (len(terms) * MOST) if loss_type == "dr_grpo" else total / sum(map(len, terms)))


@pytest.mark.parametrize("loss_type", ["grpo", "dr_grpo", "dapo", "bnpo", "luspo", "cispo", "rloo"])
def test_the_loss_is_the_formula(loss_type: str, build: Build, tmp_path: Path) -> None:
    """Advantages from the means of groups, clipping at both sides, the KL, and each loss's own divisor."""
    sums(tmp_path)
    scale = ["rlhf.scale_rewards=none"] if loss_type == "dr_grpo" else []
    own = [f"rlhf.epsilon_high={LARGEST if loss_type == 'cispo' else HIGH}"]
    trainer = build(*WORDS, f"rlhf.loss_type={loss_type}", *scale, *own)
    # Any of many tokens ends an answer: the lengths differ, and so do the losses' divisors.
    trainer.eos_token_ids = trainer.generation_config.eos_token_id = list(range(2, 250))
    snapshots = Snapshots()
    trainer.add_callback(snapshots)
    trainer.train()
    rows = table(trainer.context.out)
    assert len(rows) == 8 and {row["step"] for row in rows} == {0}  # one generation, trained twice
    assert len({row["tokens"] for row in rows}) > 2
    rewards = grouped(rows, "reward")
    assert (rewards.std(dim=1) > 0).all()
    encoded = trainer.context.tokenizer
    asked = {row["row"]: list(row["prompt_ids"]) for row in trainer.train_dataset}
    batch = trainer._buffered_inputs[0]
    stored = {(int(key[1]), tuple(ids[mask.bool()].tolist())) for key, ids, mask in
              zip(batch["rows"], batch["completion_ids"], batch["completion_mask"], strict=True)}  # fmt: skip
    answers = []
    for row in rows:
        ids = next(ids for number, ids in stored if number == row["row"]
                   and encoded.decode(ids, skip_special_tokens=True) == row["completion"])  # fmt: skip
        answers.append((asked[row["row"]], list(ids)))
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert losses[1] == pytest.approx(
        by_hand(loss_type, snapshots.models, answers, rewards), rel=2e-4, abs=1e-6
    )
