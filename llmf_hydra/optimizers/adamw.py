"""`optimizer=adamw`: Adam with decoupled weight decay (Loshchilov and Hutter 2017, arXiv:1711.05101)."""

from torch import nn
from torch.optim import AdamW, Optimizer

from llmf_hydra.config.groups.optimizer import OptimizerConfig
from llmf_hydra.optimizers.build import ParameterGroup
from llmf_hydra.optimizers.common.footprint import Footprint, footprint_of


def build(
    model: nn.Module,
    groups: list[ParameterGroup],
    optimizer: OptimizerConfig,
    learning_rate: float,
    seed: int,
) -> AdamW:
    """PyTorch's AdamW."""
    return AdamW(groups, **optimizer.adam_settings(learning_rate))  # pyright: ignore[reportArgumentType]


def footprint(optimizer: Optimizer) -> Footprint:
    """Two moments of each weight."""
    return footprint_of(optimizer, lambda weight, _: 2 * weight.numel())
