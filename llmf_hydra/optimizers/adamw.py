"""`optimizer=adamw`: Adam with decoupled weight decay (Loshchilov and Hutter 2017, arXiv:1711.05101)."""

from torch.optim import AdamW, Optimizer

from llmf_hydra.config.groups.optimizer import OptimizerConfig
from llmf_hydra.optimizers.build import ParameterGroup


def build(groups: list[ParameterGroup], optimizer: OptimizerConfig, learning_rate: float) -> Optimizer:
    """PyTorch's AdamW."""
    betas = optimizer.adam_beta1, optimizer.adam_beta2
    return AdamW(groups, lr=learning_rate, betas=betas, eps=optimizer.adam_epsilon)  # pyright: ignore[reportArgumentType]
