"""The third step, as PPO does it: scores and KL become the rewards of tokens, and those become advantages."""

from dataclasses import dataclass, field
from typing import Any

import torch

from llmf_hydra.training.rl.advantages import Sum, alone, gae, token_rewards, whiten
from llmf_hydra.training.rl.buffer import Buffer
from llmf_hydra.training.rl.experience import Experience, Tensors
from llmf_hydra.training.rl.kl import AdaptiveKl, RunningMoments


@dataclass
class Estimator:
    """Generalized advantages of scored answers. It holds what adapts from buffer to buffer."""

    kl: AdaptiveKl
    score_norm: bool = False
    whiten_rewards: bool = False
    total: Sum = alone  # over all processes
    moments: RunningMoments = field(default_factory=RunningMoments)

    def __call__(self, experience: Experience) -> tuple[Buffer, Tensors]:
        """The buffer, and its metrics as values of rows. The KL coefficient acts as it is, and then follows."""
        known, mask, scores = experience.tensors, experience.tensors["mask"], experience.scores
        if self.score_norm:
            self.moments.update(scores, self.total)
            scores = self.moments.normalised(scores)
        rewards = token_rewards(scores, known["kl"], mask, self.kl.coefficient)
        metrics = self._metrics(experience, scores, rewards)
        if self.whiten_rewards:
            rewards = whiten(rewards, mask, shift=False, total=self.total)
        advantages = gae(rewards, known["values"], mask)
        buffer = Buffer(
            **{name: known[name] for name in ("ids", "attention", "mask", "log_probs", "values")},
            advantages=whiten(advantages, mask, total=self.total),
            returns=(advantages + known["values"]) * mask,
            keys=experience.keys,
        )
        self.kl.update(self._mean(experience.kl))
        return buffer, metrics

    def state_dict(self) -> dict[str, object]:
        """What adapts: the KL coefficient and the moments of the scores."""
        moments = self.moments
        return {
            "coefficient": self.kl.coefficient,
            "moments": [moments.count, moments.mean, moments.squares],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.kl.coefficient = float(state["coefficient"])
        self.moments = RunningMoments(*map(float, state["moments"]))

    def _metrics(self, experience: Experience, scores: torch.Tensor, rewards: torch.Tensor) -> Tensors:
        """What is logged of rollouts, as values (rows,) whose mean counts. `scores` are those that act."""
        kl = experience.kl
        return {
            "objective/kl": kl,
            "objective/kl_coef": torch.full_like(kl, self.kl.coefficient),
            "objective/entropy": experience.entropy,
            "objective/non_score_reward": rewards.sum(dim=1) - scores,
            "objective/rlhf_reward": rewards.sum(dim=1),
            "objective/scores": experience.scores,
            "objective/response_length": experience.lengths.float(),
            "objective/ended": experience.ended.float(),
        }

    def _mean(self, values: torch.Tensor) -> float:
        """The mean over the rows of all processes."""
        sums = self.total(torch.stack([values.sum(), torch.ones_like(values).sum()]))
        return float(sums[0] / sums[1])
