"""`optimizer=galore`: Adam on gradients projected to a low rank (GaLore, Zhao et al. 2024, arXiv:2403.03507).

Of a matrix (m, n), m <= n, it keeps r (m + 2n) numbers instead of 2mn. Weights that aren't targeted use AdamW.
"""

import torch
from torch import nn
from torch.optim import Optimizer

from llmf_hydra.config.groups.optimizer import OptimizerConfig
from llmf_hydra.optimizers.build import ParameterGroup
from llmf_hydra.optimizers.common.adam import Settings, State, adam_direction, adamw_update, decay
from llmf_hydra.optimizers.common.footprint import Footprint, footprint_of
from llmf_hydra.optimizers.common.parts import check_rank, linear_weights, with_settings
from llmf_hydra.optimizers.common.projection import Projection, sides, singular
from llmf_hydra.optimizers.common.stepping import PerWeightOptimizer


class GaLore(PerWeightOptimizer):
    """Groups with a `rank` are projected: they have also `update_interval`, `scale` and `proj_type`."""

    def update(self, weight: nn.Parameter, group: Settings) -> None:
        state = self.state[weight]
        if "rank" not in group:
            adamw_update(weight, state, group)
            return
        assert weight.grad is not None
        if state.get("step", 0) % group["update_interval"] == 0:
            renew(state, singular(weight.grad, group["rank"], sides(group["proj_type"], weight.shape)))
        projection = kept_projection(state)
        direction = adam_direction(state, projection.down(weight.grad), group)
        decay(weight, group)
        weight.add_(projection.up(direction), alpha=-group["lr"] * group["scale"])


def renew(state: State, projection: Projection) -> None:
    """Keep another projection; the moments stay as they are."""
    state.update({name: side for name, side in vars(projection).items() if side is not None})


def kept_projection(state: State) -> Projection:
    """The projection that `renew` kept."""
    return Projection(state.get("left"), state.get("right"))


def build(
    model: nn.Module,
    groups: list[ParameterGroup],
    optimizer: OptimizerConfig,
    learning_rate: float,
    seed: int,
) -> GaLore:
    """GaLore on the targeted linear layers. Raises Refused for a target that the model doesn't have and a rank that
    no gradient has."""
    targeted = linear_weights(model, "optimizer.galore_target", optimizer.galore_target)
    check_rank(targeted, "optimizer.galore_rank", optimizer.galore_rank)
    settings = {
        "rank": optimizer.galore_rank,
        "update_interval": optimizer.galore_update_interval,
        "scale": optimizer.galore_scale,
        "proj_type": optimizer.galore_proj_type,
    }
    return GaLore(with_settings(groups, targeted, **settings), optimizer.adam_settings(learning_rate))


def footprint(optimizer: Optimizer) -> Footprint:
    """The two moments in the low rank, and the projections."""

    def kept(weight: torch.Tensor, group: Settings) -> int:
        if "rank" not in group:
            return 2 * weight.numel()
        chosen, rank = sides(group["proj_type"], weight.shape), group["rank"]
        return chosen.projection_size(weight.shape, rank) + 2 * chosen.low_rank_size(weight.shape, rank)

    return footprint_of(optimizer, kept)
