"""`optimizer=muon`: orthogonalized momentum for the matrices of the hidden layers (Muon, Jordan et al. 2024).

https://kellerjordan.github.io/posts/muon/. Everything else (embeddings, heads, norms, biases) uses AdamW. The steps
of Muon are scaled to AdamW's size (Liu et al. 2025, arXiv:2502.16982), so that one learning rate suits both.
"""

from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Muon, Optimizer

from llmf_hydra.config.groups.optimizer import OptimizerConfig
from llmf_hydra.errors import Problem, Refused
from llmf_hydra.optimizers.build import ParameterGroup
from llmf_hydra.optimizers.common.adam import Settings
from llmf_hydra.optimizers.common.footprint import Footprint, footprint_of
from llmf_hydra.optimizers.common.parts import hidden_layers, with_settings

MATRIX = "adjust_lr_fn"  # a setting that the groups of Muon alone have


class MuonWithAdamW(Optimizer):
    """PyTorch's Muon and AdamW as one optimizer: one list of groups, one state."""

    def __init__(self, groups: list[dict[str, Any]], settings: Settings):
        matrices = [group for group in groups if MATRIX in group]
        others = [group for group in groups if MATRIX not in group]
        muon = [Muon(matrices, lr=settings["lr"])] if matrices else []  # pyright: ignore[reportArgumentType]
        adamw = [AdamW(others, **settings)] if others else []  # pyright: ignore[reportArgumentType]
        self._parts: list[Optimizer] = [*muon, *adamw]
        super().__init__([group for part in self._parts for group in part.param_groups], {})
        self._share()

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for part in self._parts:
            part.step()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()

    def _share(self) -> None:
        """Have the parts work on this optimizer's groups and state."""
        groups = iter(self.param_groups)
        for part in self._parts:
            part.param_groups = [next(groups) for _ in part.param_groups]
            part.state = self.state


def build(
    model: nn.Module,
    groups: list[ParameterGroup],
    optimizer: OptimizerConfig,
    learning_rate: float,
    seed: int,
) -> MuonWithAdamW:
    """Muon on the matrices of the hidden layers. Raises Refused for a model without a list of them, and where none of
    them is trained."""
    layers = hidden_layers(model, optimizer.name)
    matrices = {weight for layer in layers for weight in layer.parameters() if weight.dim() == 2}
    if not any(weight.requires_grad for weight in matrices):
        what = "no matrix of the hidden layers is trained, and other weights use AdamW"
        raise Refused([Problem("optimizer", optimizer.name, what, "choose optimizer=adamw")])
    cut = with_settings(groups, matrices, **{MATRIX: "match_rms_adamw"})
    return MuonWithAdamW(cut, optimizer.adam_settings(learning_rate))


def footprint(optimizer: Optimizer) -> Footprint:
    """A momentum of each matrix, two moments of each other weight."""
    return footprint_of(optimizer, lambda weight, group: (1 if MATRIX in group else 2) * weight.numel())
