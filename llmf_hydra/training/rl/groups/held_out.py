"""The metrics of an evaluation on held-out prompts, exact however the prompts are cut into batches."""

from dataclasses import dataclass, field

import torch


@dataclass
class HeldOut:
    """Collects the rewards of the answers to held-out prompts, those of a prompt one after the other."""

    answers: int  # per prompt
    passing: float  # the reward from which on an answer passes
    rewards: list[float] = field(default_factory=list)

    def take(self) -> dict[str, float]:
        """The mean reward, and pass@1 and pass@k: the shares of answers that pass, and of prompts with one that does.

        `pass_at_k` is that of all answers to a prompt, k of them (Chen et al. 2021, arXiv:2107.03374, with n = k).
        """
        if not self.rewards:
            return {}
        groups = torch.tensor(self.rewards, dtype=torch.float64).view(-1, self.answers)
        passed = groups >= self.passing
        self.rewards = []
        return {
            "reward": groups.mean().item(),
            "reward_std": groups.std(correction=int(groups.numel() > 1)).item(),
            "pass_at_1": passed.double().mean().item(),
            "pass_at_k": passed.any(dim=1).double().mean().item(),
        }
