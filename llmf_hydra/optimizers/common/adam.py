"""Adam's two moments and decoupled weight decay, for one weight (arXiv:1412.6980, arXiv:1711.05101)."""

from typing import Any

import torch

Settings = dict[str, Any]  # a parameter group: lr, betas, eps, weight_decay and what its algorithm adds
State = dict[str, Any]


def adam_direction(state: State, gradient: torch.Tensor, group: Settings) -> torch.Tensor:
    """The bias-corrected first moment over the root of the second, of the gradient's shape.

    `state` keeps both moments and the count of steps; empty, it begins at 0.
    """
    if "exp_avg" not in state:
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(gradient), torch.zeros_like(gradient)
    step = count_step(state)
    beta1, beta2 = group["betas"]
    first, second = state["exp_avg"], state["exp_avg_sq"]
    first.mul_(beta1).add_(gradient, alpha=1 - beta1)
    second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    denominator = (second / (1 - beta2**step)).sqrt_().add_(group["eps"])
    return first / (1 - beta1**step) / denominator


def count_step(state: State) -> int:
    """The number of this step of the weight, from 1."""
    state["step"] = state.get("step", 0) + 1
    return state["step"]


def decay(weight: torch.Tensor, group: Settings) -> None:
    """Shrink the weight by its decoupled decay."""
    if group["weight_decay"]:
        weight.mul_(1 - group["lr"] * group["weight_decay"])


def adamw_update(weight: torch.Tensor, state: State, group: Settings) -> None:
    """One step of AdamW on a weight that has a gradient."""
    assert weight.grad is not None
    direction = adam_direction(state, weight.grad, group)
    decay(weight, group)
    weight.add_(direction, alpha=-group["lr"])
