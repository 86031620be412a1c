"""Group `optimizer`: the update of a step tells which algorithm made it, and with which numbers."""

import pytest
import torch
from support.parameter_runs import Case, Outcome, Train

RATE = 0.01  # the learning rate of these runs
SGD = {"optimizer.name": "sgd"}


def state(of: Outcome) -> frozenset[str]:
    return frozenset(name for name, value in of.states[0].items() if value is not None)


def decay_of_sgd(of: Outcome) -> float:
    """change = -rate (gradient + decay * weight)"""
    weight, change, gradient = of.update("lora_A", step=1)
    return ((-change / RATE - gradient) * weight).sum().item() / (weight * weight).sum().item()


def decay_of_adamw(of: Outcome) -> float:
    """At the first step A has no gradient, since B is 0: change = -rate * decay * weight."""
    weight, change, gradient = of.update("lora_A")
    assert not gradient.any()
    return -(change * weight).sum().item() / (RATE * (weight * weight).sum().item())


def first_moment(of: Outcome) -> float:
    """(1 - beta1) * gradient, after the first step."""
    return (of.states[0]["exp_avg"].norm() / _first_gradient(of).norm()).item()


def second_moment(of: Outcome) -> float:
    """(1 - beta2) * gradient squared"""
    return (of.states[0]["exp_avg_sq"].norm() / (_first_gradient(of) ** 2).norm()).item()


def epsilon(of: Outcome) -> float:
    """The first step is change = -rate * gradient / (|gradient| + epsilon)."""
    _, change, gradient = of.update("lora_B")
    at = gradient.abs().argmax()
    return (-RATE * gradient[at] / change[at] - gradient[at].abs()).item()


def _first_gradient(of: Outcome) -> torch.Tensor:
    return next(iter(of.gradients[0].values()))


MOMENTS = {"method.name": "full"}
CASES = [
    Case(
        "optimizer.name",
        state,
        {
            "adamw": {"step", "exp_avg", "exp_avg_sq"},
            "adafactor": {"step", "exp_avg_sq_row", "exp_avg_sq_col", "RMS"},
            "sgd": set(),
        },
    ),
    Case("optimizer.weight_decay", decay_of_adamw, {0.0: 0.0, 0.3: pytest.approx(0.3, rel=1e-3)}),
    Case(
        "optimizer.weight_decay",
        decay_of_sgd,
        {0.0: pytest.approx(0, abs=1e-4), 0.3: pytest.approx(0.3, rel=1e-3)},
        SGD,
    ),
    Case(
        "optimizer.adam_beta1",
        first_moment,
        {0.9: pytest.approx(0.1, rel=1e-3), 0.5: pytest.approx(0.5, rel=1e-3)},
        MOMENTS,
    ),
    Case(
        "optimizer.adam_beta2",
        second_moment,
        {0.999: pytest.approx(1e-3, rel=1e-3), 0.5: pytest.approx(0.5, rel=1e-3)},
        MOMENTS,
    ),
    Case(
        "optimizer.adam_epsilon", epsilon, {1e-8: pytest.approx(0, abs=1e-5), 1.0: pytest.approx(1, rel=1e-3)}
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.key)
def test_outcomes(case: Case, train: Train) -> None:
    case.check(train)


def test_plain_gradient_descent_goes_against_the_gradient(train: Train) -> None:
    _, change, gradient = train(SGD).update(step=1)
    assert change.tolist() == pytest.approx((-RATE * gradient).tolist(), abs=1e-7)
    assert change.norm() > 0


def test_norms_are_not_decayed(train: Train) -> None:
    plain = train({"method.name": "full"})
    decayed = train({"method.name": "full", "optimizer.weight_decay": 0.3})
    for name, weight in plain.weights[1].items():
        assert weight.equal(decayed.weights[1][name]) == ("norm" in name), name


def test_adafactor_decays_too(train: Train) -> None:
    named = {"optimizer.name": "adafactor"}
    plain, decayed = (train({**named, "optimizer.weight_decay": decay}) for decay in (0.0, 0.3))
    assert any(not weight.equal(decayed.weights[1][name]) for name, weight in plain.weights[1].items())
