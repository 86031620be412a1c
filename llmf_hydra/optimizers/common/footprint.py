"""What an optimizer takes in memory."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.optim import Optimizer

from llmf_hydra.optimizers.common.adam import Settings
from llmf_hydra.optimizers.common.stepping import PerWeightOptimizer


class Footprint(NamedTuple):
    """Of an optimizer, at its peak."""

    trained: int  # weights that are stepped sooner or later
    gradients: int  # bytes
    state: int  # bytes


Kept = Callable[[torch.Tensor, Settings], int]


def footprint_of(optimizer: Optimizer, kept: Kept) -> Footprint:
    """Where all weights are stepped together; `kept` gives the numbers, in a weight's own type, kept for it."""
    sizes = [
        (weight.numel(), weight.element_size(), kept(weight, group))
        for group in optimizer.param_groups
        for weight in group["params"]
    ]
    gradients = [numbers * size for numbers, size, _ in sizes]
    layerwise = isinstance(optimizer, PerWeightOptimizer) and optimizer.layerwise is not None
    return Footprint(
        trained=sum(numbers for numbers, _, _ in sizes),
        gradients=max(gradients, default=0) if layerwise else sum(gradients),
        state=sum(count * size for _, size, count in sizes),
    )
