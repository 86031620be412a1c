"""From scores to advantages: rewards of tokens, whitening, and generalized advantage estimation.

All tensors are (rows, answer) in float32 with a mask of the answers' tokens; what stands off the mask is 0.
"""

from collections.abc import Callable

import torch

GAMMA, LAMBDA = 1.0, 0.95  # discount and trace of GAE, as Ziegler et al. 2019 (arXiv:1909.08593) set them
Sum = Callable[[torch.Tensor], torch.Tensor]  # the sum of a tensor over all processes


def alone(tensor: torch.Tensor) -> torch.Tensor:
    """The sum over the only process there is."""
    return tensor


def token_rewards(
    scores: torch.Tensor, kl: torch.Tensor, mask: torch.Tensor, coefficient: float
) -> torch.Tensor:
    """`-coefficient * kl` at each token, and the score (rows,) on top at the last (Ziegler et al. 2019, 2.2)."""
    rewards = -coefficient * kl * mask
    last = (mask.sum(dim=1) - 1).clamp(min=0)
    return rewards.scatter_add(1, last.unsqueeze(1), scores.unsqueeze(1).to(rewards.dtype))


def whiten(
    values: torch.Tensor, mask: torch.Tensor, *, shift: bool = True, total: Sum = alone
) -> torch.Tensor:
    """Values with variance 1 over the mask, and mean 0; without `shift` they keep their mean."""
    count = total(mask.sum().float())
    mean = total((values * mask).sum()) / count
    variance = total((((values - mean) ** 2) * mask).sum()) / count
    whitened = (values - mean) * torch.rsqrt(variance + 1e-8)
    return (whitened if shift else whitened + mean) * mask


def gae(
    rewards: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, gamma: float = GAMMA, lam: float = LAMBDA
) -> torch.Tensor:
    """Advantages `A_t = sum_k (gamma lam)^k delta_{t+k}` with `delta_t = r_t + gamma V_{t+1} - V_t`, and
    V = 0 after the last token (Schulman et al. 2016, arXiv:1506.02438, eq. 16). One pass from the end.
    """
    values, rewards = values * mask, rewards * mask
    following = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], dim=1)
    deltas = rewards + gamma * following - values
    advantages = torch.zeros_like(deltas)
    later = torch.zeros_like(deltas[:, 0])
    for at in range(deltas.shape[1] - 1, -1, -1):
        later = deltas[:, at] + gamma * lam * later
        advantages[:, at] = later
    return advantages * mask
