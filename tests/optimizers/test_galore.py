"""GaLore beside algorithm 2 of its paper (arXiv:2403.03507), written down here again."""

from typing import Any

import pytest
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
    trained_by,
    weights_of,
)

STEPS = 7
BASE: dict[str, Any] = {"galore_rank": 3, "galore_update_interval": 3}
# Each row changes one parameter of GaLore, or one of Adam's.
CASES: list[dict[str, Any]] = [
    {},
    {"galore_rank": 5},
    {"galore_update_interval": 4},
    {"galore_scale": 1.5},
    {"galore_proj_type": "reverse_std"},
    {"galore_proj_type": "left"},
    {"galore_proj_type": "right"},
    {"galore_proj_type": "full"},
    {"galore_target": "q_proj,mlp"},
    {"galore_rank": 12},  # of k_proj and v_proj 8, their shorter dimension
    {"adam_beta1": 0.5, "adam_beta2": 0.8, "adam_epsilon": 1e-3},
]


class Reference:
    """P is of the left singular vectors where m <= n; the paper's other case is the same of the transpose."""

    def __init__(self, settings: dict[str, Any]):
        self.s = {"galore_scale": 0.25, "galore_proj_type": "std", "galore_target": "all", **BASE, **settings}
        self.adam = AdamW(*(settings.get(f"adam_{name}", default) for name, default in
                            (("beta1", 0.9), ("beta2", 0.999), ("epsilon", 1e-8))))  # fmt: skip
        self.p: dict[str, tuple[Any, Any]] = {}

    def targeted(self, name: str) -> bool:
        if self.s["galore_target"] == "all":
            return is_linear(name)
        return "q_proj" in name or ".mlp." in name

    def __call__(self, t: int, weights: Weights, gradients: Weights) -> Weights:
        return {name: self.step(t, name, weights[name], gradients[name]) for name in weights}

    def step(self, t: int, name: str, w: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        if not self.targeted(name):
            return self.adam.step(name, w, g)
        m, n = w.shape
        kind, r = self.s["galore_proj_type"], self.s["galore_rank"]
        if t % self.s["galore_update_interval"] == 0:
            u, _, vh = torch.linalg.svd(g.float(), full_matrices=False)
            left = kind in ("left", "full") or (kind == "std" and m < n) or (kind == "reverse_std" and m >= n)
            right = kind in ("right", "full") or not left
            p = u[:, :r].double() if left else torch.eye(m, dtype=torch.double)
            q = vh[:r, :].T.double() if right else torch.eye(n, dtype=torch.double)
            self.p[name] = p, q
        p, q = self.p[name]
        low = p.T @ g @ q
        update = self.s["galore_scale"] * p @ self.adam.direction(name, low) @ q.T
        return w - RATE * decayed(name) * w - RATE * update


def trained(settings: dict[str, Any]) -> Weights:
    model = llama()
    return train(model, optimizer_of(model, "galore", **{**BASE, **settings}), STEPS)


def test_it_is_the_algorithm_of_the_paper_and_every_parameter_acts() -> None:
    outcomes = [trained(settings) for settings in CASES]
    for settings, found in zip(CASES, outcomes, strict=True):
        assert close(found, trained_by(Reference(settings), STEPS), 1e-7), settings
    for number, found in enumerate(outcomes):
        for other in outcomes[:number]:
            assert not close(found, other, 1e-5), (CASES[number], "changes nothing")


def test_a_quadratic_is_minimized_within_the_projected_space() -> None:
    """0.5 |W - W*|^2 with W* of rank 2: the gradient stays of rank 2, and so a projection of rank 2 loses nothing."""
    generator = torch.Generator().manual_seed(1)
    left, right = (torch.randn(*shape, generator=generator) for shape in ((6, 2), (2, 9)))
    model = llama(layers=1)
    layer = model.model.layers[0].self_attn
    layer.q_proj = torch.nn.Linear(9, 6, bias=False)
    torch.nn.init.zeros_(layer.q_proj.weight)
    optimizer = optimizer_of(model, "galore", galore_rank=2, galore_update_interval=1, galore_scale=1.0,
                             galore_target="q_proj", weight_decay=0.0)  # fmt: skip
    for _ in range(300):
        (0.5 * (layer.q_proj.weight - left @ right).square().sum()).backward()
        optimizer.step()
        model.zero_grad()
    assert (layer.q_proj.weight - left @ right).norm() < 0.1 * (left @ right).norm()
    assert optimizer.state[layer.q_proj.weight]["exp_avg"].shape == (2, 9)


def test_layerwise_frees_each_gradient_and_reaches_the_same_weights() -> None:
    ordinary = trained({})
    model = llama()
    optimizer = optimizer_of(model, "galore", **BASE, galore_layerwise=True)
    for number in range(STEPS):
        loss(model, number).backward()
        assert all(weight.grad is None for weight in model.parameters())
        optimizer.step()
    found = weights_of(model)
    assert all(torch.equal(found[name], ordinary[name]) for name in ordinary)


def test_a_gradient_that_is_not_finite_is_not_stepped_on_layerwise() -> None:
    model = llama()
    optimizer: Any = optimizer_of(model, "galore", **BASE, galore_layerwise=True)
    before = weights_of(model)
    (loss(model, 0) * float("nan")).backward()
    assert not optimizer.layerwise.norm().isfinite()
    assert all(torch.equal(weight, before[name]) for name, weight in weights_of(model).items())
    optimizer.step()
    loss(model, 0).backward()
    expected = torch.autograd.grad(loss(fresh := llama(), 0), list(fresh.parameters()))
    norm = torch.stack([gradient.norm() for gradient in expected]).norm().float()
    assert optimizer.layerwise.norm().item() == pytest.approx(norm.item(), rel=1e-6)
