"""`optimizer=adam_mini`: one second moment per block of the Hessian (Adam-mini, Zhang et al. 2024, arXiv:2406.16793).

A block is a token of an embedding or an output head, a head of the query and key projections, an output neuron of
any other matrix, and a vector as a whole. It keeps little more than the first moment: half of AdamW's state.
"""

import torch
from torch import nn
from torch.optim import Optimizer

from llmf_hydra.config.groups.optimizer import OptimizerConfig
from llmf_hydra.optimizers.build import ParameterGroup
from llmf_hydra.optimizers.common.adam import Settings, count_step, decay
from llmf_hydra.optimizers.common.footprint import Footprint, footprint_of
from llmf_hydra.optimizers.common.parts import head_size, with_settings
from llmf_hydra.optimizers.common.stepping import PerWeightOptimizer

QUERY_KEY = ("q_proj", "k_proj", "query", "key", "wq", "wk")  # modules that are cut into heads


class AdamMini(PerWeightOptimizer):
    """`rows` of a group is how many rows of a matrix share a second moment; 1 where it isn't given."""

    def update(self, weight: nn.Parameter, group: Settings) -> None:
        assert weight.grad is not None
        state, gradient = self.state[weight], weight.grad
        blocks = block_count(weight, group)
        if "exp_avg" not in state:
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(gradient), gradient.new_zeros(blocks)
        step = count_step(state)
        beta1, beta2 = group["betas"]
        first, second = state["exp_avg"], state["exp_avg_sq"]
        first.mul_(beta1).add_(gradient, alpha=1 - beta1)
        squares = gradient.reshape(blocks, -1).square().mean(dim=1)
        second.mul_(beta2).add_(squares, alpha=1 - beta2)
        denominator = (second / (1 - beta2**step)).sqrt_().add_(group["eps"])
        direction = first.reshape(blocks, -1) / (1 - beta1**step) / denominator[:, None]
        decay(weight, group)
        weight.add_(direction.view_as(weight), alpha=-group["lr"])


def block_count(weight: torch.Tensor, group: Settings) -> int:
    """The second moments of a weight."""
    return weight.shape[0] // group.get("rows", 1) if weight.dim() > 1 else 1


def build(
    model: nn.Module,
    groups: list[ParameterGroup],
    optimizer: OptimizerConfig,
    learning_rate: float,
    seed: int,
) -> AdamMini:
    """Adam-mini over all groups."""
    rows = head_size(model)
    heads = {
        weight
        for path, weight in model.named_parameters()
        if rows
        and path.removesuffix(".weight").rpartition(".")[2] in QUERY_KEY
        and weight.shape[0] % rows == 0
    }
    return AdamMini(with_settings(groups, heads, rows=rows), optimizer.adam_settings(learning_rate))


def footprint(optimizer: Optimizer) -> Footprint:
    """The first moment, and a number per block."""
    return footprint_of(optimizer, lambda weight, group: weight.numel() + block_count(weight, group))
