"""Adam-mini beside algorithm 1 and the partition of its paper (arXiv:2406.16793), written down here again."""

import torch
from support.small_models import (
    HEADS,
    HIDDEN,
    KEYS,
    RATE,
    Weights,
    close,
    decayed,
    llama,
    optimizer_of,
    train,
    trained_by,
)

STEPS = 6


def blocks(name: str, gradient: torch.Tensor) -> list[torch.Tensor]:
    """The gradient cut into the blocks that share a second moment."""
    if gradient.dim() == 1:
        return [gradient]
    if "q_proj" in name or "k_proj" in name:
        return list(gradient.chunk(HEADS if "q_proj" in name else KEYS, dim=0))
    return list(gradient)  # tokens of the embedding and the head, neurons of all others


class Reference:
    def __init__(self, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8):
        self.betas, self.epsilon = (beta1, beta2), epsilon
        self.m: Weights = {}
        self.v: dict[tuple[str, int], float] = {}

    def __call__(self, t: int, weights: Weights, gradients: Weights) -> Weights:
        return {name: self.step(t + 1, name, weights[name], gradients[name]) for name in weights}

    def step(self, t: int, name: str, w: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        beta1, beta2 = self.betas
        w = w - RATE * decayed(name) * w
        self.m[name] = (1 - beta1) * g + beta1 * self.m.get(name, torch.zeros_like(g))
        moments = blocks(name, self.m[name] / (1 - beta1**t))
        changes: list[torch.Tensor] = []
        for number, block in enumerate(blocks(name, g)):
            before = self.v.get((name, number), 0.0)
            self.v[name, number] = v = (1 - beta2) * (block * block).mean().item() + beta2 * before
            changes.append(moments[number] / ((v / (1 - beta2**t)) ** 0.5 + self.epsilon))
        return w - RATE * torch.cat([change.reshape(-1) for change in changes]).reshape(w.shape)


def test_it_is_the_algorithm_of_the_paper() -> None:
    outcomes = []
    for numbers in ((0.9, 0.999, 1e-8), (0.5, 0.999, 1e-8), (0.9, 0.8, 1e-8), (0.9, 0.999, 1e-2)):
        model = llama()
        given = dict(zip(("adam_beta1", "adam_beta2", "adam_epsilon"), numbers, strict=True))
        found = train(model, optimizer_of(model, "adam_mini", **given), STEPS)
        assert close(found, trained_by(Reference(*numbers), STEPS)), given
        assert all(not close(found, other, 1e-5) for other in outcomes), given
        outcomes.append(found)


def test_it_keeps_a_second_moment_per_head_neuron_and_token() -> None:
    model = llama()
    optimizer = optimizer_of(model, "adam_mini")
    train(model, optimizer, 1)
    kept = {name: len(optimizer.state[weight]["exp_avg_sq"]) for name, weight in model.named_parameters()}
    layer = {name.removeprefix("model.layers.0."): count for name, count in kept.items() if ".0." in name}
    assert layer["self_attn.q_proj.weight"] == HEADS and layer["self_attn.k_proj.weight"] == KEYS
    assert layer["self_attn.v_proj.weight"] == KEYS * HIDDEN // HEADS
    assert layer["mlp.down_proj.weight"] == HIDDEN and layer["input_layernorm.weight"] == 1
    assert kept["model.embed_tokens.weight"] == kept["lm_head.weight"] == 32
