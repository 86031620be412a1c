"""Each loss equals its paper's formula, written out here with `math` for one pair, and so does its gradient."""

import math
from collections.abc import Callable

import pytest
import torch

from llmf_hydra.training import losses
from llmf_hydra.training.losses import Answers, Ratios

PAIRS = 6
BETA, GAMMA, SMOOTHING = 0.3, 0.7, 0.2
Z = (0.15, 0.05)  # divergences by the chosen and the rejected answers


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def log_odds(mean: float) -> float:
    return mean - math.log(1 - math.exp(mean))


# name -> the formula of one pair: log-probabilities of policy (c, r) and reference (rc, rr), tokens (nc, nr)
FORMULAS: dict[str, Callable[..., float]] = {
    "sigmoid": lambda c, r, rc, rr, nc, nr: -log_sigmoid(BETA * ((c - rc) - (r - rr))),
    "smoothed": lambda c, r, rc, rr, nc, nr: (
        -(1 - SMOOTHING) * log_sigmoid(BETA * ((c - rc) - (r - rr)))
        - SMOOTHING * log_sigmoid(-BETA * ((c - rc) - (r - rr)))
    ),
    "hinge": lambda c, r, rc, rr, nc, nr: max(0.0, 1 - BETA * ((c - rc) - (r - rr))),
    "ipo": lambda c, r, rc, rr, nc, nr: ((c - rc) / nc - (r - rr) / nr - 1 / (2 * BETA)) ** 2,
    "kto_pair": lambda c, r, rc, rr, nc, nr: (
        (1 - sigmoid(BETA * (c - rc - Z[1]))) / 2 + (1 - sigmoid(BETA * (Z[0] - (r - rr)))) / 2
    ),
    "orpo": lambda c, r, rc, rr, nc, nr: -c / nc - BETA * log_sigmoid(log_odds(c / nc) - log_odds(r / nr)),
    "simpo": lambda c, r, rc, rr, nc, nr: -log_sigmoid(BETA * c / nc - BETA * r / nr - GAMMA),
    "supervised": lambda c, r, rc, rr, nc, nr: -c / nc,
}


def ours(name: str, a: Answers, h: Ratios) -> torch.Tensor:
    return {
        "sigmoid": lambda: losses.sigmoid(h, BETA),
        "smoothed": lambda: losses.sigmoid(h, BETA, SMOOTHING),
        "hinge": lambda: losses.hinge(h, BETA),
        "ipo": lambda: losses.ipo(h, a, BETA),
        "kto_pair": lambda: losses.kto_pair(h, BETA, *map(torch.tensor, Z)),
        "orpo": lambda: losses.orpo(a, BETA),
        "simpo": lambda: losses.simpo(a, BETA, GAMMA),
        "supervised": lambda: losses.supervised(a),
    }[name]()


def pairs() -> tuple[list[list[float]], list[list[int]]]:
    """Log-probabilities of policy and reference, and numbers of tokens."""
    made = torch.Generator().manual_seed(1)
    tokens = torch.randint(2, 9, (PAIRS, 2), generator=made).tolist()
    means = -torch.rand(PAIRS, 4, generator=made) * 2 - 0.1
    return [
        [float(m) * n for m, n in zip(row, [*ns, *ns], strict=True)]
        for row, ns in zip(means, tokens, strict=True)
    ], tokens


@pytest.mark.parametrize("name", FORMULAS)
def test_loss_and_gradient_equal_the_formula(name: str) -> None:
    numbers, tokens = pairs()
    policy = torch.tensor([row[:2] for row in numbers], requires_grad=True)
    reference = torch.tensor([row[2:] for row in numbers])
    counts = torch.tensor(tokens)
    answers = Answers(policy[:, 0], policy[:, 1], counts[:, 0], counts[:, 1])
    ratios = Ratios(*(policy - reference).unbind(dim=1))
    loss = ours(name, answers, ratios)
    loss.sum().backward()
    assert policy.grad is not None and loss.shape == (PAIRS,)
    for pair, (row, ns) in enumerate(zip(numbers, tokens, strict=True)):
        formula = FORMULAS[name]
        assert loss[pair].item() == pytest.approx(formula(*row, *ns), rel=1e-6, abs=1e-6)
        for side in (0, 1):  # central difference of the formula, in float64
            step = 1e-6
            up, down = list(row), list(row)
            up[side] += step
            down[side] -= step
            slope = (formula(*up, *ns) - formula(*down, *ns)) / (2 * step)
            assert policy.grad[pair, side].item() == pytest.approx(slope, rel=2e-6, abs=2e-6)


@pytest.mark.parametrize(
    "good", [[True, False, True], [True] * 3, [False] * 3], ids=["both", "all good", "all bad"]
)
def test_kto_equals_its_formula(good: list[bool]) -> None:
    h = torch.tensor([0.8, -0.4, 2.5], requires_grad=True)
    loss = losses.kto(h, torch.tensor(good), torch.tensor(0.3), BETA, (1.5, 0.5))
    loss.sum().backward()
    assert h.grad is not None
    for number, (value, is_good) in enumerate(zip(h.tolist(), good, strict=True)):
        gain, weight = (value - 0.3, 1.5) if is_good else (0.3 - value, 0.5)
        assert loss[number].item() == pytest.approx(weight * (1 - sigmoid(BETA * gain)), rel=1e-6, abs=1e-6)
        slope = weight * BETA * sigmoid(BETA * gain) * (1 - sigmoid(BETA * gain)) * (-1 if is_good else 1)
        assert h.grad[number].item() == pytest.approx(slope, rel=1e-6, abs=1e-6)


def test_divergence_is_the_mean_above_zero_and_has_no_gradient() -> None:
    ratios = torch.tensor([1.0, -0.5, 0.4], requires_grad=True)
    assert (
        losses.divergence(ratios).item() == pytest.approx(0.3) and not losses.divergence(ratios).requires_grad
    )
    assert losses.divergence(-ratios).item() == 0 and losses.divergence(ratios[:0]).item() == 0


def test_odds_are_exact_near_certainty() -> None:
    sure = torch.tensor([-1e-6])
    one = torch.ones(1)
    loss = losses.orpo(Answers(sure, torch.tensor([-2.0]), one, one), 1.0)
    expected = 1e-6 - log_sigmoid((-1e-6 - math.log(-math.expm1(-1e-6))) - log_odds(-2.0))
    assert loss.item() == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert torch.isfinite(losses.orpo(Answers(torch.zeros(1), torch.tensor([-2.0]), one, one), 1.0)).all()
