"""APOLLO beside algorithm 1 of its paper (arXiv:2412.05270), written down here again."""

from typing import Any

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
BASE: dict[str, Any] = {"apollo_rank": 3, "apollo_update_interval": 3, "apollo_proj": "svd"}
CASES: list[dict[str, Any]] = [
    {},
    {"apollo_rank": 5},
    {"apollo_update_interval": 4},
    {"apollo_scale": 2.0},
    {"apollo_scale_type": "tensor"},
    {"apollo_scale_front": True},
    {"apollo_proj_type": "left"},
    {"apollo_proj_type": "right"},
    {"apollo_proj": "random"},
    {"apollo_proj": "random", "apollo_update_interval": 1},
    {"apollo_target": "k_proj,down_proj"},
]


class Reference:
    """Random projections, which no paper decides, are those that the optimizer drew: `drawn` gives them."""

    def __init__(self, settings: dict[str, Any], drawn: dict[tuple[str, int], torch.Tensor]):
        default = {"apollo_scale": 32.0, "apollo_scale_type": "channel", "apollo_scale_front": False,
                   "apollo_proj_type": "std", "apollo_target": "all"}  # fmt: skip
        self.s, self.drawn, self.adam = {**default, **BASE, **settings}, drawn, AdamW()
        self.p: Weights = {}
        self.norms: dict[str, torch.Tensor] = {}

    def __call__(self, t: int, weights: Weights, gradients: Weights) -> Weights:
        return {name: self.step(t, name, weights[name], gradients[name]) for name in weights}

    def step(self, t: int, name: str, w: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        every = self.s["apollo_target"] == "all"
        if not is_linear(name) or not (every or "k_proj" in name or "down_proj" in name):
            return self.adam.step(name, w, g)
        kind = self.s["apollo_proj_type"]
        transposed = kind == "right" or (kind == "std" and w.shape[0] >= w.shape[1])
        turned = g.T if transposed else g  # so that P stands on the left
        if t % self.s["apollo_update_interval"] == 0:
            if self.s["apollo_proj"] == "random":
                self.p[name] = self.drawn[name, t // self.s["apollo_update_interval"]]
            else:
                u = torch.linalg.svd(g.float(), full_matrices=False)
                p = u[2].T if transposed else u[0]
                self.p[name] = p[:, : self.s["apollo_rank"]].T.double()
        low = self.p[name] @ turned  # r x n
        scaled = self.adam.direction(name, low)
        if self.s["apollo_scale_type"] == "channel":
            s = scaled.norm(dim=0) / (low.norm(dim=0) + 1e-8)
        else:
            s = scaled.norm() / (low.norm() + 1e-8)
        corrected = (1 - 0.999 ** (t + 1)) ** 0.5 / (1 - 0.9 ** (t + 1))  # its step size, not its moments
        if self.s["apollo_scale_front"]:
            change = self.limited(name, turned) * s
        else:
            change = self.limited(name, turned * s / corrected) * corrected
        change = change.T if transposed else change
        return w - RATE * decayed(name) * w - RATE * self.s["apollo_scale"] ** 0.5 * change

    def limited(self, name: str, g: torch.Tensor) -> torch.Tensor:
        norm = g.norm()
        if name in self.norms and norm > 1.01 * (self.norms[name] + 1e-8):
            g = g * 1.01 * (self.norms[name] + 1e-8) / norm
        self.norms[name] = g.norm()
        return g


def trained(settings: dict[str, Any]) -> tuple[Weights, dict[tuple[str, int], torch.Tensor]]:
    """The weights, and the random projections (r, m) by weight and number."""
    model = llama()
    optimizer: Any = optimizer_of(model, "apollo", **{**BASE, **settings})
    drawn: dict[tuple[str, int], torch.Tensor] = {}
    original = optimizer._projection

    def projection(gradient: torch.Tensor, state: dict[str, Any], group: dict[str, Any]) -> Any:
        found = original(gradient, state, group)
        name = next(n for n, w in model.named_parameters() if optimizer.state.get(w) is state)
        number = state.get("step", 0) // group["update_interval"]
        matrix = found.right if found.left is None else found.left.T
        assert torch.equal(drawn.setdefault((name, number), matrix), matrix), (
            "another one within the interval"
        )
        return found

    optimizer._projection = projection
    return train(model, optimizer, STEPS), drawn


def test_it_is_the_algorithm_of_the_paper_and_every_parameter_acts() -> None:
    outcomes = []
    for settings in CASES:
        found, drawn = trained(settings)
        assert close(found, trained_by(Reference(settings, drawn), STEPS), 1e-6), settings
        outcomes.append(found)
    for number, found in enumerate(outcomes):
        for other in outcomes[:number]:
            assert not close(found, other, 1e-5), (CASES[number], "changes nothing")


def test_random_projections_are_gaussian_and_not_kept() -> None:
    model = llama()
    optimizer = optimizer_of(model, "apollo", apollo_rank=8)
    train(model, optimizer, 1)
    query = model.model.layers[0].self_attn.q_proj.weight
    state = optimizer.state[query]
    assert set(state) == {"seed", "step", "exp_avg", "exp_avg_sq", "norm"} and isinstance(state["seed"], int)
    _, drawn = trained({"apollo_proj": "random", "apollo_rank": 8, "apollo_update_interval": 1})
    values = torch.cat([matrix.flatten() for matrix in drawn.values()])
    assert abs(values.mean()) < 0.01 and abs(values.var() * 8 - 1) < 0.05
    assert len({round(matrix[0, 0].item(), 12) for matrix in drawn.values()}) == len(drawn)


def test_a_gradient_of_zero_does_not_stop_a_weight_for_good() -> None:
    model = llama()
    optimizer = optimizer_of(model, "apollo", **BASE, weight_decay=0.0)
    before = weights_of(model)
    (loss(model, 0) * 0).backward()
    optimizer.step()
    model.zero_grad()
    after = train(model, optimizer, 1)
    assert all((after[name] - before[name]).abs().max() > 1e-4 for name in after if is_linear(name))


def test_layerwise_reaches_the_same_weights() -> None:
    ordinary, _ = trained({"apollo_proj": "random"})
    model = llama()
    optimizer = optimizer_of(model, "apollo", **{**BASE, "apollo_proj": "random"}, apollo_layerwise=True)
    for number in range(STEPS):
        loss(model, number).backward()
        assert all(weight.grad is None for weight in model.parameters())
        optimizer.step()
    assert all(torch.equal(weight, ordinary[name]) for name, weight in weights_of(model).items())
