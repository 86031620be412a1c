"""Muon on the matrices of the hidden layers, AdamW on everything else."""

import torch
from support.small_models import (
    RATE,
    AdamW,
    Weights,
    decayed,
    is_linear,
    llama,
    optimizer_of,
    train,
    trained_by,
    weights_of,
)

STEPS = 5


class Reference:
    """As its author writes it down (https://kellerjordan.github.io/posts/muon/), steps scaled to AdamW's size."""

    def __init__(self) -> None:
        self.adam = AdamW(0.5, 0.8, 1e-4)
        self.b: Weights = {}

    def __call__(self, t: int, weights: Weights, gradients: Weights) -> Weights:
        return {name: self.step(name, weights[name], gradients[name]) for name in weights}

    def step(self, name: str, w: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        if not is_linear(name):
            return self.adam.step(name, w, g)
        self.b[name] = 0.95 * self.b.get(name, torch.zeros_like(g)) + 0.05 * g
        update = orthogonalized(0.05 * g + 0.95 * self.b[name])
        return w - RATE * decayed(name) * w - RATE * 0.2 * max(w.shape) ** 0.5 * update


def orthogonalized(g: torch.Tensor) -> torch.Tensor:
    """Five steps of the quintic Newton-Schulz iteration, in bfloat16."""
    x = (g.T if g.shape[0] > g.shape[1] else g).bfloat16()
    x = x / x.norm()
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return (x.T if g.shape[0] > g.shape[1] else x).double()


def test_matrices_of_the_layers_use_muon_and_the_rest_adamw() -> None:
    model = llama()
    given = {"adam_beta1": 0.5, "adam_beta2": 0.8, "adam_epsilon": 1e-4}
    optimizer = optimizer_of(model, "muon", **given)
    found = train(model, optimizer, STEPS)
    expected = trained_by(Reference(), STEPS)
    start = weights_of(llama())
    for name, weight in expected.items():  # bfloat16 rounds at other places
        assert (found[name] - weight).norm() < 0.05 * (weight - start[name]).norm(), name
    kept = {name: set(optimizer.state[weight]) for name, weight in model.named_parameters()}
    for name, state in kept.items():
        assert state == ({"momentum_buffer"} if is_linear(name) else {"step", "exp_avg", "exp_avg_sq"}), name
