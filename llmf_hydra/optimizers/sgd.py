"""`optimizer=sgd`: plain gradient descent, without momentum."""

from torch import nn
from torch.optim import SGD, Optimizer

from llmf_hydra.config.groups.optimizer import OptimizerConfig
from llmf_hydra.optimizers.build import ParameterGroup
from llmf_hydra.optimizers.common.footprint import Footprint, footprint_of


def build(
    model: nn.Module,
    groups: list[ParameterGroup],
    optimizer: OptimizerConfig,
    learning_rate: float,
    seed: int,
) -> SGD:
    """PyTorch's SGD."""
    return SGD(groups, lr=learning_rate)  # pyright: ignore[reportArgumentType]


def footprint(optimizer: Optimizer) -> Footprint:
    """Nothing is kept."""
    return footprint_of(optimizer, lambda weight, _: 0)
