"""What a run adapts beside its weights: the coefficient of the KL penalty, and the moments of the scores."""

from dataclasses import dataclass

import torch

from llmf_hydra.training.rl.advantages import Sum, alone

START = 0.2  # the coefficient at the start
GAIN = 0.1  # K_beta: how fast it follows
MOST = 0.2  # the error is clipped to this size


@dataclass
class AdaptiveKl:
    """The proportional controller of Ziegler et al. 2019 (arXiv:1909.08593, section 2.2)."""

    target: float  # nats an answer
    coefficient: float = START

    def update(self, kl: float) -> None:
        """`e = clip(kl / target - 1, -0.2, 0.2)`, `coefficient *= 1 + 0.1 e`; `kl` is the mean of answers."""
        error = max(-MOST, min(MOST, kl / self.target - 1))
        self.coefficient *= 1 + GAIN * error


@dataclass
class RunningMoments:
    """Mean and variance of all scores seen, joined batch by batch (Chan et al. 1979)."""

    count: float = 0.0
    mean: float = 0.0
    squares: float = 0.0  # sum of squared distances from the mean

    def update(self, scores: torch.Tensor, total: Sum = alone) -> None:
        """Take a batch of scores (rows,), of all processes."""
        sums = total(torch.stack([torch.ones_like(scores).sum(), scores.sum()]).double())
        count, mean = float(sums[0]), float(sums[1] / sums[0])
        squares = float(total(((scores.double() - mean) ** 2).sum()))
        distance, whole = mean - self.mean, self.count + count
        self.squares += squares + distance**2 * self.count * count / whole
        self.mean += distance * count / whole
        self.count = whole

    @property
    def deviation(self) -> float:
        """The standard deviation; 1 while it isn't known or nothing varies."""
        if self.count < 2 or self.squares <= 0:
            return 1.0
        return (self.squares / (self.count - 1)) ** 0.5

    def normalised(self, scores: torch.Tensor) -> torch.Tensor:
        """`(score - mean) / deviation`."""
        return (scores - self.mean) / self.deviation
