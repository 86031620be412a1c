"""`optimizer=apollo`: gradients scaled as AdamW would, by factors from a low rank.

APOLLO, Zhu et al. 2024, arXiv:2412.05270.

Of a matrix (m, n), m <= n, it keeps 2rn numbers with a random projection, which is drawn anew from its seed at each
step, and r (m + 2n) with a singular one. Weights that aren't targeted use AdamW.
"""

import torch
from torch import nn
from torch.optim import Optimizer

from llmf_hydra.config.groups.optimizer import OptimizerConfig
from llmf_hydra.optimizers.build import ParameterGroup
from llmf_hydra.optimizers.common.adam import Settings, State, adam_direction, adamw_update, decay
from llmf_hydra.optimizers.common.footprint import Footprint, footprint_of
from llmf_hydra.optimizers.common.parts import check_rank, linear_weights, with_settings
from llmf_hydra.optimizers.common.projection import Projection, derived_seed, gaussian, sides, singular
from llmf_hydra.optimizers.common.stepping import PerWeightOptimizer

GROWTH = 1.01  # of a gradient's norm from step to step, at most (Fira, arXiv:2410.01623)
SMALL = 1e-8


class Apollo(PerWeightOptimizer):
    """Groups with a `rank` are projected: they have also the settings of `build`."""

    def update(self, weight: nn.Parameter, group: Settings) -> None:
        state = self.state[weight]
        if "rank" not in group:
            adamw_update(weight, state, group)
            return
        assert weight.grad is not None
        if "seed" not in state:
            state["seed"] = derived_seed(group["seed"], self._number(weight))
        low = self._projection(weight.grad, state, group).down(weight.grad)
        factor = _factor(adam_direction(state, low, group), low, weight.shape, group)
        if group["scale_front"]:
            change = limited(weight.grad, state) * factor
        else:
            # As the paper's own code: the limit is put on moments that aren't corrected for their bias.
            beta1, beta2 = group["betas"]
            correction = (1 - beta2 ** state["step"]) ** 0.5 / (1 - beta1 ** state["step"])
            change = limited(weight.grad * factor / correction, state) * correction
        decay(weight, group)
        weight.add_(change, alpha=-group["lr"] * group["scale"] ** 0.5)

    def _projection(self, gradient: torch.Tensor, state: State, group: Settings) -> Projection:
        count, chosen = state.get("step", 0), sides(group["proj_type"], gradient.shape)
        if group["proj"] == "random":
            seed = derived_seed(state["seed"], count // group["update_interval"])
            return gaussian(gradient, group["rank"], chosen, seed)
        if count % group["update_interval"] == 0:
            projection = singular(gradient, group["rank"], chosen)
            state.update({name: side for name, side in vars(projection).items() if side is not None})
        return Projection(state.get("left"), state.get("right"))

    def _number(self, weight: nn.Parameter) -> int:
        """The weight's place among all."""
        everything = [other for group in self.param_groups for other in group["params"]]
        return next(number for number, other in enumerate(everything) if other is weight)


def _factor(direction: torch.Tensor, low: torch.Tensor, shape: torch.Size, group: Settings) -> torch.Tensor:
    """How much AdamW scales the projected gradient: of the tensor, or of each channel along the longer dimension."""
    if group["scale_type"] == "tensor":
        return torch.linalg.vector_norm(direction) / (torch.linalg.vector_norm(low) + SMALL)
    across = 0 if sides(group["proj_type"], shape).left else 1
    norms = [torch.linalg.vector_norm(of, dim=across, keepdim=True) for of in (direction, low)]
    return norms[0] / (norms[1] + SMALL)


def limited(gradient: torch.Tensor, state: State) -> torch.Tensor:
    """The gradient with a norm of at most GROWTH times that of the step before, which `state` keeps."""
    norm, before = torch.linalg.vector_norm(gradient), state.get("norm")
    if before is not None:
        # After a gradient of 0 there is nothing to compare with, and nothing would ever move again.
        limiter = torch.where(before > 0, (norm / (before + SMALL)).clamp(min=GROWTH) / GROWTH, 1.0)
        gradient, norm = gradient / limiter, norm / limiter
    state["norm"] = norm.to(gradient.dtype)
    return gradient


def build(
    model: nn.Module,
    groups: list[ParameterGroup],
    optimizer: OptimizerConfig,
    learning_rate: float,
    seed: int,
) -> Apollo:
    """APOLLO on the targeted linear layers. Raises Refused for a target that the model doesn't have and a rank that
    no gradient has."""
    targeted = linear_weights(model, "optimizer.apollo_target", optimizer.apollo_target)
    check_rank(targeted, "optimizer.apollo_rank", optimizer.apollo_rank)
    settings = {
        "rank": optimizer.apollo_rank,
        "update_interval": optimizer.apollo_update_interval,
        "scale": optimizer.apollo_scale,
        "scale_type": optimizer.apollo_scale_type,
        "scale_front": optimizer.apollo_scale_front,
        "proj": optimizer.apollo_proj,
        "proj_type": optimizer.apollo_proj_type,
        "seed": seed,
    }
    return Apollo(with_settings(groups, targeted, **settings), optimizer.adam_settings(learning_rate))


def footprint(optimizer: Optimizer) -> Footprint:
    """The two moments in the low rank, the norm of the step before, and the projection unless a seed gives it."""

    def kept(weight: torch.Tensor, group: Settings) -> int:
        if "rank" not in group:
            return 2 * weight.numel()
        chosen, rank = sides(group["proj_type"], weight.shape), group["rank"]
        projection = chosen.projection_size(weight.shape, rank) if group["proj"] == "svd" else 0
        return projection + 2 * chosen.low_rank_size(weight.shape, rank) + 1

    return footprint_of(optimizer, kept)
