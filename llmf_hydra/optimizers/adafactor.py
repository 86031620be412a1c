"""`optimizer=adafactor`: factored second moments (Shazeer and Stern 2018, arXiv:1804.04235)."""

from torch.optim import Optimizer
from transformers.optimization import Adafactor

from llmf_hydra.config.groups.optimizer import OptimizerConfig
from llmf_hydra.optimizers.build import ParameterGroup


def build(groups: list[ParameterGroup], optimizer: OptimizerConfig, learning_rate: float) -> Optimizer:
    """Transformers' Adafactor, at the learning rate of the schedule rather than one of its own."""
    return Adafactor(groups, lr=learning_rate, scale_parameter=False, relative_step=False)
