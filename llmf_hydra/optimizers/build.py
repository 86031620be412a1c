"""The optimizer of a run: its parameter groups, and the algorithm that `optimizer.name` chooses."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, NotRequired, Protocol, TypedDict, cast

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers.trainer_pt_utils import get_parameter_names

from llmf_hydra.config.groups.optimizer import OptimizerConfig
from llmf_hydra.optimizers.common.footprint import Footprint
from llmf_hydra.optimizers.common.stepping import PerWeightOptimizer

UNDECAYED = [r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)"]  # as Transformers

STEPS = "steps"  # in a group of an optimizer that counts its own
PROGRESS = ("params", "lr", "initial_lr", STEPS)  # what a group holds beside its settings


class ParameterGroup(TypedDict):
    """Parameters that share a weight decay and a learning rate, as PyTorch's optimizers take them."""

    params: list[nn.Parameter]
    weight_decay: float
    lr: NotRequired[float]  # in place of the run's
    fixed_lr: NotRequired[bool]  # whether `lr` stays where a resumed run has another learning rate


@dataclass(frozen=True)
class Rates:
    """Weights, by name, that don't have the learning rate of the run: its multiples, and rates of their own."""

    factors: Mapping[str, float] = field(default_factory=dict)
    fixed: Mapping[str, float] = field(default_factory=dict)

    def group(self, name: str, learning_rate: float) -> tuple[float | None, bool]:
        """The rate of a weight, None for the run's, and whether it is one of its own."""
        if name in self.fixed:
            return self.fixed[name], True
        return (learning_rate * self.factors[name], False) if name in self.factors else (None, False)


class Algorithm(Protocol):
    """A file of this room, named as `optimizer.name` names it."""

    def build(
        self,
        model: nn.Module,
        groups: list[ParameterGroup],
        optimizer: OptimizerConfig,
        learning_rate: float,
        seed: int,
    ) -> Optimizer:
        """The optimizer over the groups of the model's trained weights. Raises Refused."""
        ...

    def footprint(self, optimizer: Any) -> Footprint:
        """What an optimizer that `build` made takes in memory."""
        ...


def load_algorithm(name: str) -> Algorithm:
    """The algorithm of that name."""
    return cast("Algorithm", import_module(f"llmf_hydra.optimizers.{name}"))


def build_optimizer(
    model: nn.Module,
    optimizer: OptimizerConfig,
    learning_rate: float,
    seed: int = 0,
    rates: Rates = Rates(),
) -> Optimizer:
    """The run's optimizer over the trainable parameters of a model; what it draws at random follows from the seed.

    Raises Refused where the model lacks what the config names.
    """
    groups = parameter_groups(model, optimizer.weight_decay, learning_rate, rates)
    built = load_algorithm(optimizer.name).build(model, groups, optimizer, learning_rate, seed)
    if optimizer.layerwise_key is not None:
        cast("PerWeightOptimizer", built).step_in_backward()
    return built


def without_weights(model: nn.Module, optimizer: OptimizerConfig) -> tuple[Optimizer, Footprint]:
    """The optimizer of a model on the meta device, which is used up by that, and what it will take in memory.

    It steps at `step()` alone. Raises Refused as `build_optimizer` does.
    """
    built = build_optimizer(model, optimizer, learning_rate=1.0)
    taken = load_algorithm(optimizer.name).footprint(built)
    if isinstance(built, PerWeightOptimizer) and built.layerwise is not None:
        built.layerwise.release()
    return built, taken


def parameter_groups(
    model: nn.Module, weight_decay: float, learning_rate: float = 0.0, rates: Rates = Rates()
) -> list[ParameterGroup]:
    """Groups of trainable parameters: those that are decayed, and the biases and norms, which aren't; then the same
    of those that have another learning rate."""
    decayed = set(get_parameter_names(model, [nn.LayerNorm], UNDECAYED))
    groups: dict[tuple[float | None, bool, bool], list[nn.Parameter]] = {
        (None, False, True): [], (None, False, False): []
    }  # fmt: skip
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            groups.setdefault((*rates.group(name, learning_rate), name in decayed), []).append(weight)
    return [_group(key, weights, weight_decay) for key, weights in groups.items()]


def _group(
    key: tuple[float | None, bool, bool], weights: list[nn.Parameter], weight_decay: float
) -> ParameterGroup:
    rate, fixed, decays = key
    group = ParameterGroup(params=weights, weight_decay=weight_decay if decays else 0.0)
    if rate is not None:
        group["lr"] = rate
    if fixed:
        group["fixed_lr"] = True
    return group


def settings(optimizer: Optimizer) -> list[dict[str, Any]]:
    """The settings of each group: what a config decides, learning rates apart."""
    return [
        {key: value for key, value in group.items() if key not in PROGRESS}
        for group in optimizer.param_groups
    ]


def follow_settings(optimizer: Optimizer, given: list[dict[str, Any]]) -> None:
    """Have a resumed run follow the settings of its config: the state of a checkpoint brings those of its own."""
    for group, of_config in zip(optimizer.param_groups, given, strict=True):
        group.update(of_config)


def follow_learning_rate(optimizer: Optimizer, schedulers: Iterable[object], learning_rate: float) -> None:
    """Have a resumed run follow the learning rate of its config where the checkpoint was written with another one."""
    for scheduler in schedulers:
        if not isinstance(scheduler, LambdaLR) or scheduler.base_lrs[0] in (0, learning_rate):
            continue
        factor = learning_rate / scheduler.base_lrs[0]
        factors = [1.0 if group.get("fixed_lr") else factor for group in optimizer.param_groups]
        scheduler.base_lrs = [rate * by for rate, by in zip(scheduler.base_lrs, factors, strict=True)]
        # What the next line of the log says.
        scheduler._last_lr = [rate * by for rate, by in zip(scheduler._last_lr, factors, strict=True)]
        for group, by in zip(optimizer.param_groups, factors, strict=True):
            group["lr"], group["initial_lr"] = group["lr"] * by, group["initial_lr"] * by
