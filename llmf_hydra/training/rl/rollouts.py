"""Collecting: prompts become a buffer of answers with their scores, advantages and returns."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from peft import PeftModel
from torch import nn

from llmf_hydra.models.value_head import PolicyWithValue
from llmf_hydra.training.generation import Rollouts, Sampling, roll_out, seeded
from llmf_hydra.training.reference import as_reference, frozen
from llmf_hydra.training.rl.advantages import Sum, alone, gae, token_rewards, whiten
from llmf_hydra.training.rl.buffer import Buffer, Key, joined
from llmf_hydra.training.rl.kl import AdaptiveKl, RunningMoments
from llmf_hydra.training.rl.losses import entropies, log_probs
from llmf_hydra.training.rl.rewards.adapter import NAME
from llmf_hydra.training.rl.rewards.build import Reward

Prompt = tuple[Key, Sequence[int]]
Tensors = dict[str, torch.Tensor]


@dataclass
class Scored:
    """Answers with what each model said of them; `tensors` are (rows, answer), the others (rows,)."""

    tensors: Tensors  # ids, attention, mask, log_probs, values, kl, entropy
    scores: torch.Tensor
    ended: torch.Tensor
    keys: list[Key]

    @property
    def kl(self) -> torch.Tensor:
        """The KL of each answer, (rows,): the sum over its tokens."""
        return (self.tensors["kl"] * self.tensors["mask"]).sum(dim=1)

    @property
    def lengths(self) -> torch.Tensor:
        """Tokens of each answer, (rows,)."""
        return self.tensors["mask"].sum(dim=1)


@dataclass
class Collector:
    """The models of a run as one maker of buffers. It holds what is adapted from buffer to buffer."""

    model: PolicyWithValue
    reference: nn.Module | None  # None: the policy with its adapter off
    reward: Reward
    sampling: Sampling
    kl: AdaptiveKl
    chunk: int  # rows of a forward pass
    score_norm: bool = False
    whiten_rewards: bool = False
    total: Sum = alone  # over all processes
    autocast: Callable[..., AbstractContextManager] = nullcontext
    moments: RunningMoments = field(default_factory=RunningMoments)

    def scored(self, prompts: Sequence[Prompt], seed: int) -> Scored:
        """Answer prompts, and have every model speak of the answers."""
        device = next(self.model.parameters()).device
        with frozen(self.model), self.autocast(), seeded(seed, device):
            rollouts = roll_out(self.model.policy, [ids for _, ids in prompts], self.sampling)
        rows = len(prompts)
        parts = [self._chunk(rollouts.rows(at, at + self.chunk)) for at in range(0, rows, self.chunk)]
        tensors = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        with self.autocast():
            scores = self.reward(rollouts)
        kept = {"ids": rollouts.ids, "attention": rollouts.attention, "mask": rollouts.mask}
        return Scored({**kept, **tensors}, scores, rollouts.ended, [key for key, _ in prompts])

    def buffer(self, batches: Sequence[Sequence[Prompt]], seed: int) -> tuple[Buffer, Tensors, Scored]:
        """Roll out some batches and join them: the buffer, metrics as values of rows, and the answers.

        The KL coefficient acts as it is, and then follows what was measured.
        """
        answers = self._joined([self.scored(batch, seed + at) for at, batch in enumerate(batches)])
        scores = answers.scores
        if self.score_norm:
            self.moments.update(scores, self.total)
            scores = self.moments.normalised(scores)
        known = answers.tensors
        mask = known["mask"]
        rewards = token_rewards(scores, known["kl"], mask, self.kl.coefficient)
        metrics = self.metrics(answers, scores, rewards)
        if self.whiten_rewards:
            rewards = whiten(rewards, mask, shift=False, total=self.total)
        advantages = gae(rewards, known["values"], mask)
        returns = (advantages + known["values"]) * mask
        kept = {name: known[name] for name in ("ids", "attention", "mask", "log_probs", "values")}
        whitened = whiten(advantages, mask, total=self.total)
        self.kl.update(self._mean(answers.kl))
        return Buffer(**kept, advantages=whitened, returns=returns, keys=answers.keys), metrics, answers

    def metrics(self, answers: Scored, scores: torch.Tensor, rewards: torch.Tensor) -> Tensors:
        """What is logged of rollouts, as values (rows,) whose mean counts. `scores` are those that act."""
        known, lengths = answers.tensors, answers.lengths
        return {
            "objective/kl": answers.kl,
            "objective/kl_coef": torch.full_like(answers.kl, self.kl.coefficient),
            "objective/entropy": (known["entropy"] * known["mask"]).sum(dim=1),
            "objective/non_score_reward": rewards.sum(dim=1) - scores,
            "objective/rlhf_reward": rewards.sum(dim=1),
            "objective/scores": answers.scores,
            "objective/response_length": lengths.float(),
            "objective/ended": answers.ended.float(),
        }

    @torch.no_grad()
    def _chunk(self, rollouts: Rollouts) -> Tensors:
        """What policy, value head and reference say of some answers."""
        temperature, answers = self.sampling.temperature, rollouts.answers
        with frozen(self.model), self.autocast():
            logits, values = self.model(rollouts.ids, rollouts.attention, rollouts.width)
            log_p = log_probs(logits, answers, temperature)
            entropy = entropies(logits, temperature)
        del logits  # as large as the vocabulary is
        reference = log_probs(self._reference_logits(rollouts), answers, temperature)
        return {"log_probs": log_p, "values": values, "entropy": entropy, "kl": log_p - reference}

    def _reference_logits(self, rollouts: Rollouts) -> torch.Tensor:
        model = self.model.policy if self.reference is None else self.reference
        # A reference of its own may have an adapter that belongs to it; the reward's never does.
        bare = isinstance(model, PeftModel) and (self.reference is None or NAME in model.peft_config)
        switched = as_reference(model) if bare else nullcontext()  # pyright: ignore
        with frozen(model), switched, self.autocast():
            return PolicyWithValue.logits(model, rollouts.ids, rollouts.attention, rollouts.width)

    def _joined(self, parts: Sequence[Scored]) -> Scored:
        return Scored(
            joined([part.tensors for part in parts], self.sampling.pad_id),
            torch.cat([part.scores for part in parts]),
            torch.cat([part.ended for part in parts]),
            [key for part in parts for key in part.keys],
        )

    def _mean(self, values: torch.Tensor) -> float:
        """The mean over the rows of all processes."""
        sums = self.total(torch.stack([values.sum(), torch.ones_like(values).sum()]))
        return float(sums[0] / sums[1])
