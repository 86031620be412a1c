"""`optimizer=sgd`: plain gradient descent, without momentum."""

from torch.optim import SGD, Optimizer

from llmf_hydra.config.groups.optimizer import OptimizerConfig
from llmf_hydra.optimizers.build import ParameterGroup


def build(groups: list[ParameterGroup], optimizer: OptimizerConfig, learning_rate: float) -> Optimizer:
    """PyTorch's SGD."""
    return SGD(groups, lr=learning_rate)  # pyright: ignore[reportArgumentType]
