"""`optimizer=adafactor`: factored second moments (Shazeer and Stern 2018, arXiv:1804.04235)."""

import torch
from torch import nn
from torch.optim import Optimizer
from transformers.optimization import Adafactor

from llmf_hydra.config.groups.optimizer import OptimizerConfig
from llmf_hydra.optimizers.build import ParameterGroup
from llmf_hydra.optimizers.common.adam import Settings
from llmf_hydra.optimizers.common.footprint import Footprint, footprint_of


def build(
    model: nn.Module,
    groups: list[ParameterGroup],
    optimizer: OptimizerConfig,
    learning_rate: float,
    seed: int,
) -> Adafactor:
    """Transformers' Adafactor, at the learning rate of the schedule rather than one of its own."""
    return Adafactor(groups, lr=learning_rate, scale_parameter=False, relative_step=False)


def footprint(optimizer: Optimizer) -> Footprint:
    """Of a matrix its rows' and columns' second moments, of a vector its own, all in float32."""

    def kept(weight: torch.Tensor, _: Settings) -> int:
        *before, rows, columns = 1, *weight.shape
        numbers = weight.numel() if weight.dim() < 2 else torch.Size(before).numel() * (rows + columns)
        return numbers * torch.float32.itemsize // weight.element_size()

    return footprint_of(optimizer, kept)
