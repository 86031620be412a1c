"""The optimizer of a run: its parameter groups, and the algorithm that `optimizer.name` chooses."""

from collections.abc import Iterable
from importlib import import_module
from typing import Protocol, TypedDict, cast

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers.trainer_pt_utils import get_parameter_names

from llmf_hydra.config.groups.optimizer import OptimizerConfig

UNDECAYED = [r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)"]  # as Transformers


class ParameterGroup(TypedDict):
    """Parameters that share a weight decay, as PyTorch's optimizers take them."""

    params: list[nn.Parameter]
    weight_decay: float


class Algorithm(Protocol):
    """A file of this room, named as `optimizer.name` names it."""

    def build(
        self, groups: list[ParameterGroup], optimizer: OptimizerConfig, learning_rate: float
    ) -> Optimizer:
        """The optimizer over the groups."""
        ...


def load_algorithm(name: str) -> Algorithm:
    """The algorithm of that name."""
    return cast("Algorithm", import_module(f"llmf_hydra.optimizers.{name}"))


def build_optimizer(model: nn.Module, optimizer: OptimizerConfig, learning_rate: float) -> Optimizer:
    """The run's optimizer over the trainable parameters of a model."""
    groups = parameter_groups(model, optimizer.weight_decay)
    return load_algorithm(optimizer.name).build(groups, optimizer, learning_rate)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[ParameterGroup]:
    """Two groups of trainable parameters: those that are decayed, and the biases and norms, which aren't."""
    names = set(get_parameter_names(model, [nn.LayerNorm], UNDECAYED))
    trained = [(name in names, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    return [
        ParameterGroup(
            params=[weight for decayed, weight in trained if decayed is group],
            weight_decay=weight_decay if group else 0.0,
        )
        for group in (True, False)
    ]


def follow_learning_rate(optimizer: Optimizer, schedulers: Iterable[object], learning_rate: float) -> None:
    """Have a resumed run follow the learning rate of its config where the checkpoint was written with another one."""
    for scheduler in schedulers:
        if not isinstance(scheduler, LambdaLR) or scheduler.base_lrs[0] in (0, learning_rate):
            continue
        factor = learning_rate / scheduler.base_lrs[0]
        scheduler.base_lrs = [rate * factor for rate in scheduler.base_lrs]
        scheduler._last_lr = [
            rate * factor for rate in scheduler._last_lr
        ]  # what the next line of the log says
        for group in optimizer.param_groups:
            group["lr"], group["initial_lr"] = group["lr"] * factor, group["initial_lr"] * factor
