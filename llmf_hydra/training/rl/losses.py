"""Log-probabilities of answers, and PPO's two losses, each as a value of every token."""

import torch

CLIP = 0.2  # how far the ratio may move from 1 before its gradient stops
VALUE_CLIP = 0.2  # the same for the values
VALUE_WEIGHT = 0.1  # of the value loss beside the policy's


def log_probs(logits: torch.Tensor, tokens: torch.Tensor, temperature: float) -> torch.Tensor:
    """log p(token) (rows, answer) under the policy that acts, `softmax(logits / temperature)`.

    `logits` are (rows, answer, vocabulary) in float32.
    """
    return torch.log_softmax(logits / temperature, dim=-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)


def entropies(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """Entropy (rows, answer) of the policy that acts, in nats."""
    all_log_probs = torch.log_softmax(logits / temperature, dim=-1)
    return -(all_log_probs.exp() * all_log_probs).sum(dim=-1)


def policy_losses(
    new: torch.Tensor, old: torch.Tensor, advantages: torch.Tensor, clip: float = CLIP
) -> tuple[torch.Tensor, torch.Tensor]:
    """`-min(ratio A, clip(ratio, 1 - clip, 1 + clip) A)` with `ratio = exp(new - old)`; if the clip acts.

    Schulman et al. 2017 (arXiv:1707.06347, eq. 7), as a loss.
    """
    ratio = torch.exp(new - old)
    plain, clipped = -advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip)
    return torch.max(plain, clipped), clipped > plain


def value_losses(
    new: torch.Tensor, old: torch.Tensor, returns: torch.Tensor, clip: float = VALUE_CLIP
) -> tuple[torch.Tensor, torch.Tensor]:
    """`1/2 max((V - R)^2, (old + clip(V - old, -clip, clip) - R)^2)`, and whether the clip acts.

    The clipping of the values is that of OpenAI's baselines; the paper has the plain square.
    """
    near = old + (new - old).clamp(-clip, clip)
    plain, clipped = (new - returns) ** 2, (near - returns) ** 2
    return 0.5 * torch.max(plain, clipped), clipped > plain
