"""Losses on answers' log-probabilities: small pure functions, one a paper, each with its formula.

`pi` is the policy, `ref` the reference; `c` the chosen answer, `r` the rejected one. A log-probability of an
answer is the sum over its tokens unless a mean is spoken of. All tensors have shape (pairs,) and all functions
return one loss a pair.
"""

from typing import NamedTuple

import torch
from torch.nn import functional as F


class Answers(NamedTuple):
    """Log-probabilities of the answers of some pairs, and their numbers of tokens; shape (pairs,) each."""

    chosen: torch.Tensor
    rejected: torch.Tensor
    chosen_tokens: torch.Tensor
    rejected_tokens: torch.Tensor

    @property
    def chosen_mean(self) -> torch.Tensor:
        return self.chosen / self.chosen_tokens

    @property
    def rejected_mean(self) -> torch.Tensor:
        return self.rejected / self.rejected_tokens


class Ratios(NamedTuple):
    """`h = log pi(y|x) - log ref(y|x)` of both answers, shape (pairs,) each."""

    chosen: torch.Tensor
    rejected: torch.Tensor


def sigmoid(h: Ratios, beta: float, smoothing: float = 0.0) -> torch.Tensor:
    """DPO, with conservative labels where `smoothing` is the probability that a label is wrong.

    `-(1 - e) log sigmoid(beta (h_c - h_r)) - e log sigmoid(-beta (h_c - h_r))`; Rafailov et al. 2023
    (arXiv:2305.18290), eq. 7, and Mitchell 2023, "A note on DPO with noisy preferences", eq. 3.
    """
    margin = beta * (h.chosen - h.rejected)
    return -(1 - smoothing) * F.logsigmoid(margin) - smoothing * F.logsigmoid(-margin)


def hinge(h: Ratios, beta: float) -> torch.Tensor:
    """`max(0, 1 - beta (h_c - h_r))`; SLiC, Zhao et al. 2023 (arXiv:2305.10425), in the form of RSO
    (Liu et al. 2023, arXiv:2309.06657, eq. 14)."""
    return torch.relu(1 - beta * (h.chosen - h.rejected))


def ipo(h: Ratios, answers: Answers, beta: float) -> torch.Tensor:
    """`(h_c / |c| - h_r / |r| - 1 / (2 beta))^2`; Azar et al. 2023 (arXiv:2310.12036), eq. 17.

    The ratios are means over the answers' tokens, as the authors say that their results were computed.
    """
    return (h.chosen / answers.chosen_tokens - h.rejected / answers.rejected_tokens - 1 / (2 * beta)) ** 2


def kto_pair(h: Ratios, beta: float, z_chosen: torch.Tensor, z_rejected: torch.Tensor) -> torch.Tensor:
    """`1 - sigmoid(beta (h_c - z_r)) + 1 - sigmoid(beta (z_c - h_r))`, halved: the mean over the two answers.

    Ethayarajh et al. 2024 (arXiv:2402.01306), eq. 7 on pairs. `z_c` and `z_r` estimate the KL divergence from the
    reference by the chosen and the rejected answers: `max(0, mean h)`, without gradient.
    """
    good = 1 - torch.sigmoid(beta * (h.chosen - z_rejected))
    bad = 1 - torch.sigmoid(beta * (z_chosen - h.rejected))
    return (good + bad) / 2


def divergence(ratios: torch.Tensor) -> torch.Tensor:
    """KTO's estimate of the KL divergence: `max(0, mean h)`, without gradient; 0 of no ratios at all."""
    return ratios.detach().mean().clamp(min=0) if ratios.numel() else ratios.new_zeros(())


def orpo(answers: Answers, beta: float) -> torch.Tensor:
    """`-mean log pi(c|x) - beta log sigmoid(log odds(c) - log odds(r))`, `odds(y) = p / (1 - p)` with `p` the
    exponential of the mean log-probability of the answer's tokens; Hong et al. 2024 (arXiv:2403.07691), eq. 6-7.
    """
    log_odds = _log_odds(answers.chosen_mean) - _log_odds(answers.rejected_mean)
    return -answers.chosen_mean - beta * F.logsigmoid(log_odds)


def _log_odds(log_p: torch.Tensor) -> torch.Tensor:
    """`log(p / (1 - p))`; exact also where p is near 1."""
    log_p = log_p.clamp(max=-1e-7)  # p = 1 has no odds
    return log_p - torch.log(-torch.expm1(log_p))


def simpo(answers: Answers, beta: float, gamma: float) -> torch.Tensor:
    """`-log sigmoid(beta mean log pi(c|x) - beta mean log pi(r|x) - gamma)`; Meng et al. 2024
    (arXiv:2405.14734), eq. 6."""
    return -F.logsigmoid(beta * (answers.chosen_mean - answers.rejected_mean) - gamma)


def supervised(answers: Answers) -> torch.Tensor:
    """`-mean log pi(c|x)` over the tokens of the chosen answer: what `pref_ftx` weighs."""
    return -answers.chosen_mean


def kto(
    h: torch.Tensor, good: torch.Tensor, z: torch.Tensor, beta: float, weights: tuple[float, float]
) -> torch.Tensor:
    """`w_c (1 - sigmoid(beta (h - z)))` for good answers, `w_r (1 - sigmoid(beta (z - h)))` for bad ones.

    Ethayarajh et al. 2024 (arXiv:2402.01306), eq. 7-8. `h` and the flags `good` have shape (answers,), `z` is the
    estimate of the KL divergence, `weights` are (w_c, w_r). Returns one loss an answer.
    """
    gain = torch.where(good, h - z, z - h)
    weight = torch.where(good, weights[0], weights[1])
    return weight * (1 - torch.sigmoid(beta * gain))
