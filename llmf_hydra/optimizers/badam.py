"""`optimizer=badam`: AdamW on one block of the weights at a time (BAdam, Luo et al. 2024, arXiv:2404.02827).

Layer mode: the blocks are the hidden layers. Only the current one has gradients and an optimizer state, which are
dropped when the next one takes over. Weights outside the layers stay as they are, as in the paper's experiments,
but for heads of scores and values, which start random and so are always trained.

Ratio mode: of each weight a random share of its entries is stepped, another one after each interval; the state is
that of the share, the gradients are whole.
"""

import logging
import math
import random
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from transformers import PreTrainedModel

from llmf_hydra.config.groups.optimizer import OptimizerConfig
from llmf_hydra.errors import Problem, Refused
from llmf_hydra.optimizers.build import STEPS, ParameterGroup
from llmf_hydra.optimizers.common.adam import Settings, adam_direction, adamw_update
from llmf_hydra.optimizers.common.footprint import Footprint
from llmf_hydra.optimizers.common.parts import hidden_layers
from llmf_hydra.optimizers.common.projection import derived_seed
from llmf_hydra.optimizers.common.stepping import PerWeightOptimizer

log = logging.getLogger(__name__)
Named = list[tuple[str, nn.Parameter]]


class _InTurns(PerWeightOptimizer):
    """Counts its steps in the groups, and calls `take_turn` at the beginning and after each interval."""

    def __init__(self, groups: Sequence[Any], settings: Settings, interval: int | None):
        super().__init__([{**group, STEPS: 0} for group in groups], settings)
        self._interval = interval  # None: there is one turn

    @property
    def turn(self) -> int:
        """How many turns have ended."""
        return self.param_groups[0][STEPS] // self._interval if self._interval else 0

    def take_turn(self) -> None:
        """Make ready for the current turn."""

    def has_turns(self, weight: torch.Tensor) -> bool:
        """Whether the state of a weight is dropped at the end of a turn."""
        return True

    def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().step()
        before = self.turn
        for group in self.param_groups:
            group[STEPS] += 1
        if self.turn != before:
            for weight in [weight for weight in self.state if self.has_turns(weight)]:
                del self.state[weight]
            self.take_turn()


class LayerBAdam(_InTurns):
    """`blocks` take turns; weights of the groups that are in no block are stepped always."""

    def __init__(
        self, groups: Sequence[Any], settings: Settings, blocks: list[Named], order: "Order", verbose: int
    ):
        super().__init__(groups, settings, order.interval)
        self.blocks, self._order, self._verbose = blocks, order, verbose
        self.current = -1
        self.take_turn()

    def update(self, weight: nn.Parameter, group: Settings) -> None:
        adamw_update(weight, self.state[weight], group)

    def has_turns(self, weight: torch.Tensor) -> bool:
        return any(weight is other for block in self.blocks for _, other in block)

    def take_turn(self) -> None:
        """Let the current block alone be trained, and free what was kept for the others."""
        current = self._order.block(self.turn)
        if current == self.current:
            return
        self.current = current
        for number, block in enumerate(self.blocks):
            for _, weight in block:
                weight.requires_grad_(number == current)
                weight.grad = None
        self._tell()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.take_turn()

    def _tell(self) -> None:
        if self.blocks[0][0][1].is_meta:  # an estimate, which trains nothing
            return
        if self._verbose >= 1:
            log.info("BAdam: block %d of %d is trained now", self.current, len(self.blocks))
        if self._verbose >= 2:
            log.info("BAdam: %s", ", ".join(name for name, _ in self.blocks[self.current]))


class RatioBAdam(_InTurns):
    """Each turn has a mask of its own, which `group["seed"]` and the turn decide, and which isn't kept."""

    def __init__(self, groups: Sequence[Any], settings: Settings, interval: int | None, verbose: int):
        super().__init__(groups, settings, interval)
        weights = [weight for group in self.param_groups for weight in group["params"]]
        self._numbers = {weight: number for number, weight in enumerate(weights)}
        self._verbose = verbose
        self.take_turn()

    def update(self, weight: nn.Parameter, group: Settings) -> None:
        assert weight.grad is not None
        seed = derived_seed(group["seed"], self._numbers[weight], self.turn)
        entries = mask(weight, group["update_ratio"], group["mask_mode"], seed)
        direction = adam_direction(self.state[weight], weight.grad.reshape(-1)[entries], group)
        flat = weight.view(-1)
        kept = flat[entries] * (1 - group["lr"] * group["weight_decay"])
        flat[entries] = kept - group["lr"] * direction

    def take_turn(self) -> None:
        if self._verbose >= 1 and not any(weight.is_meta for weight in self._numbers):
            log.info("BAdam: mask %d is stepped now", self.turn)


class Order:
    """Which block has which turn; `interval` is None where there is but one turn."""

    def __init__(self, optimizer: OptimizerConfig, blocks: int, seed: int):
        self._mode, self._blocks, self._seed = optimizer.badam_switch_mode, blocks, seed
        first = blocks - 1 if self._mode == "descending" else 0
        if self._mode == "random":
            first = self._shuffled(0)[0]
        given = optimizer.badam_start_block
        self._start = first if given is None else given
        fixed = self._mode in (None, "fixed")
        self.interval = None if fixed else steps_of_a_turn(optimizer)

    def block(self, turn: int) -> int:
        """The block of a turn. In random order each block comes once before one comes again."""
        if self._mode == "random":
            cycle, place = divmod(turn, self._blocks)
            order = self._shuffled(cycle)
            if cycle == 0:
                order = [self._start, *(block for block in order if block != self._start)]
            return order[place]
        step = {"ascending": 1, "descending": -1}.get(self._mode or "", 0)
        return (self._start + step * turn) % self._blocks

    def _shuffled(self, cycle: int) -> list[int]:
        return random.Random(derived_seed(self._seed, cycle)).sample(range(self._blocks), self._blocks)


def steps_of_a_turn(optimizer: OptimizerConfig) -> int | None:
    """Steps between two switches; None where there are none."""
    interval = optimizer.badam_switch_interval
    return None if interval in (None, -1) else interval


def mask(weight: torch.Tensor, ratio: float, mode: str, seed: int) -> slice | torch.Tensor:
    """The entries of a flattened weight that are stepped: a run of neighbours, or one at random of each of k equal
    stretches (scatter), so that they needn't be kept, shape (k,)."""
    numbers, share = weight.numel(), share_of(weight, ratio)
    if mode == "adjacent":
        start = random.Random(seed).randrange(numbers - share + 1)
        return slice(start, start + share)
    generator = None if weight.is_meta else torch.Generator(weight.device).manual_seed(seed)
    borders = torch.arange(share + 1, device=weight.device) * numbers // share
    chance = torch.rand(share, generator=generator, device=weight.device, dtype=torch.float64)
    return borders[:-1] + (chance * borders.diff()).long()


def share_of(weight: torch.Tensor, ratio: float) -> int:
    """How many entries of a weight are stepped."""
    return math.ceil(weight.numel() * ratio)


def build(
    model: nn.Module,
    groups: list[ParameterGroup],
    optimizer: OptimizerConfig,
    learning_rate: float,
    seed: int,
) -> LayerBAdam | RatioBAdam:
    """BAdam in its mode. In layer mode it decides which weights are trainable. Raises Refused for a model without
    hidden layers that are trained, and for a first block that there isn't."""
    settings, verbose = optimizer.adam_settings(learning_rate), optimizer.badam_verbose
    if optimizer.badam_mode == "ratio":
        share = {"update_ratio": optimizer.badam_update_ratio, "mask_mode": optimizer.badam_mask_mode}
        masked = [{**group, **share, "seed": seed} for group in groups]
        return RatioBAdam(masked, settings, steps_of_a_turn(optimizer), verbose)
    blocks = _blocks(model, optimizer)
    inside = {weight for block in blocks for _, weight in block} | set(_fresh_heads(model))
    frozen = [weight for weight in model.parameters() if weight.requires_grad and weight not in inside]
    if frozen and not frozen[0].is_meta:
        count = sum(weight.numel() for weight in frozen)
        log.info("BAdam trains the hidden layers; %s weights outside them stay as they are", f"{count:,}")
    for weight in frozen:
        weight.requires_grad_(False)
    kept = [
        {**group, "params": [weight for weight in group["params"] if weight in inside]} for group in groups
    ]
    order = Order(optimizer, len(blocks), seed)
    return LayerBAdam([group for group in kept if group["params"]], settings, blocks, order, verbose)


def footprint(optimizer: Optimizer) -> Footprint:
    """In layer mode gradients and moments of the largest block, in ratio mode all gradients and the masks' moments."""
    if isinstance(optimizer, LayerBAdam):
        inside = {weight for block in optimizer.blocks for _, weight in block}
        always = [weight for weight in _weights(optimizer) if weight not in inside]
        largest = max(_bytes(weight for _, weight in block) for block in optimizer.blocks) + _bytes(always)
        trained = sum(weight.numel() for weight in [*inside, *always])
        return Footprint(trained, gradients=largest, state=2 * largest)
    state = sum(
        2 * share_of(weight, group["update_ratio"]) * weight.element_size()
        for group in optimizer.param_groups
        for weight in group["params"]
    )
    trained = sum(weight.numel() for weight in _weights(optimizer))
    return Footprint(trained, gradients=_bytes(_weights(optimizer)), state=state)


def _weights(optimizer: Optimizer) -> Iterator[nn.Parameter]:
    return (weight for group in optimizer.param_groups for weight in group["params"])


def _bytes(weights: Any) -> int:
    return sum(weight.numel() * weight.element_size() for weight in weights)


def _blocks(model: nn.Module, optimizer: OptimizerConfig) -> list[Named]:
    """The trained weights of each hidden layer that has some."""
    names = {weight: name for name, weight in model.named_parameters()}
    layers = [
        [(names[weight], weight) for weight in layer.parameters() if weight.requires_grad]
        for layer in hidden_layers(model, optimizer.name)
    ]
    blocks = [layer for layer in layers if layer]
    first, key = optimizer.badam_start_block, "optimizer.badam_start_block"
    if not blocks:
        raise Refused([Problem("optimizer", optimizer.name, "no hidden layer is trained", "train some")])
    if first is not None and first >= len(blocks):
        raise Refused([Problem(key, first, f"there are {len(blocks)} blocks, the first of which is 0")])
    return blocks


def _fresh_heads(model: nn.Module) -> Iterator[nn.Parameter]:
    """The trained weights of linear layers outside the list of layers that aren't the head of tokens."""
    bodies = [module for module in model.modules() if isinstance(module, PreTrainedModel)]
    tokens = {head for body in bodies if (head := body.get_output_embeddings()) is not None}
    lists = [path for path, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    for path, module in model.named_modules():
        inside = any(path.startswith(f"{holder}.") for holder in lists)
        if isinstance(module, nn.Linear) and not inside and module not in tokens:
            yield from (weight for weight in module.parameters() if weight.requires_grad)
