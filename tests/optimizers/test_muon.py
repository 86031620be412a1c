"""Muon on the matrices of the hidden layers, AdamW on everything else."""

import torch
from support.small_models import (
    RATE,
    AdamW,
    Weights,
    close,
    decayed,
    is_linear,
    llama,
    loss,
    optimizer_of,
    train,
    weights_of,
)
from torch.optim._muon import _zeropower_via_newtonschulz

STEPS = 4


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
        self.b[name] = self.b.get(name, torch.zeros_like(g)).lerp(g, 0.05)
        update = orthogonalized(g.lerp(self.b[name], 0.95))
        return w - RATE * decayed(name) * w - RATE * 0.2 * max(w.shape) ** 0.5 * update


def orthogonalized(g: torch.Tensor) -> torch.Tensor:
    """PyTorch's own: in bfloat16, another order of the same products would lead elsewhere."""
    return _zeropower_via_newtonschulz(g, (3.4445, -4.7750, 2.0315), 5, 1e-7).double()


def test_matrices_of_the_layers_use_muon_and_the_rest_adamw() -> None:
    model = llama()
    given = {"adam_beta1": 0.5, "adam_beta2": 0.8, "adam_epsilon": 1e-4}
    optimizer = optimizer_of(model, "muon", **given)
    reference = Reference()
    for number in range(STEPS):  # step by step from the same weights, for bfloat16 makes much of the last bit
        loss(model, number).backward()
        gradients = {name: weight.grad.clone() for name, weight in model.named_parameters()}
        expected = reference(number, weights_of(model), gradients)
        optimizer.step()
        model.zero_grad()
        assert close(weights_of(model), expected), number
    kept = {name: set(optimizer.state[weight]) for name, weight in model.named_parameters()}
    for name, state in kept.items():
        assert state == ({"momentum_buffer"} if is_linear(name) else {"step", "exp_avg", "exp_avg_sq"}), name


def test_a_step_is_orthogonal_and_of_the_size_of_adamws() -> None:
    model = llama()
    before = weights_of(model)
    after = train(model, optimizer_of(model, "muon", weight_decay=0.0), 1)
    for name, weight in before.items():
        if is_linear(name) and min(weight.shape) == 8:  # one batch has a gradient of that rank
            step = (after[name] - weight) / (RATE * 0.2 * max(weight.shape) ** 0.5)
            values = torch.linalg.svdvals(step)
            assert values.min() > 0.5 and values.max() < 1.3, name
            size = (after[name] - weight).square().mean().sqrt() / RATE
            assert 0.1 < size < 0.4, "AdamW's is 0.2 to 0.4"
