"""Group `optimizer`: the optimizer and its own settings (spec tables apollo, badam, galore)."""

from dataclasses import dataclass
from typing import Any

from llmf_hydra.config.choices import OPTIMIZERS, planned
from llmf_hydra.config.param import param

APOLLO = {"optimizer.name": ("apollo",)}
BADAM = {"optimizer.name": ("badam",)}
LAYERS = {**BADAM, "optimizer.badam_mode": ("layer",)}
MASKS = {**BADAM, "optimizer.badam_mode": ("ratio",)}
GALORE = {"optimizer.name": ("galore",)}
ADAM = {"optimizer.name": tuple(name for name, info in OPTIMIZERS.items() if info.adam)}


@dataclass
class OptimizerConfig:
    name: str = param(
        "adamw",
        "Optimizer.",
        choices=tuple(OPTIMIZERS),
        planned_choices=planned(OPTIMIZERS),
    )
    weight_decay: float = param(0.0, "Weight decay, not applied to biases and norms.", ge=0)
    adam_beta1: float = param(0.9, "Adam's beta1.", ge=0, lt=1, only=ADAM)
    adam_beta2: float = param(0.999, "Adam's beta2.", ge=0, lt=1, only=ADAM)
    adam_epsilon: float = param(1e-8, "Adam's epsilon.", gt=0, only=ADAM)
    # APOLLO: Zhu et al. 2024, arXiv:2412.05270
    apollo_target: str = param(
        "all",
        "Linear layers to apply APOLLO to, by parts of their path (q_proj, mlp), separated by commas; all = every one "
        "but the head. Other weights use AdamW.",
        only=APOLLO,
    )
    apollo_rank: int = param(
        16, "Rank of APOLLO's gradient projection, at most a matrix's shorter dimension.", ge=1, only=APOLLO
    )
    apollo_update_interval: int = param(
        200, "Steps between updates of APOLLO's projection.", ge=1, only=APOLLO
    )
    apollo_scale: float = param(
        32.0, "APOLLO's scaling factor; its square root multiplies the update.", gt=0, only=APOLLO
    )
    apollo_proj: str = param(
        "random",
        "APOLLO's projection: leading singular vectors (svd), or drawn from a seed and not kept (random).",
        choices=("svd", "random"),
        only=APOLLO,
    )
    apollo_proj_type: str = param(
        "std",
        "Side of APOLLO's projection: std projects a matrix's shorter dimension.",
        choices=("std", "right", "left"),
        only=APOLLO,
    )
    apollo_scale_type: str = param(
        "channel",
        "APOLLO's scaling: a factor per channel, or one per tensor (APOLLO-Mini).",
        choices=("channel", "tensor"),
        only=APOLLO,
    )
    apollo_layerwise: bool = param(
        False,
        "Step each weight within the backward pass and free its gradient.",
        only=APOLLO,
    )
    apollo_scale_front: bool = param(
        False,
        "Apply the norm-growth limiter to the gradient before it is scaled, rather than after.",
        only=APOLLO,
    )
    # BAdam: Luo et al. 2024, arXiv:2404.02827
    badam_mode: str = param(
        "layer",
        "BAdam mode: one hidden layer at a time (layer), or a share of the entries of each weight (ratio).",
        choices=("layer", "ratio"),
        only=BADAM,
    )
    badam_start_block: int | None = param(
        None,
        "Index of BAdam's first block; null is the first of the order in badam_switch_mode.",
        ge=0,
        only=LAYERS,
    )
    badam_switch_mode: str | None = param(
        "ascending",
        "Order in which BAdam switches blocks; fixed and null stay with the first.",
        choices=("ascending", "descending", "random", "fixed"),
        only=LAYERS,
    )
    badam_switch_interval: int | None = param(
        50,
        "Steps between BAdam's switches of the block, or in ratio mode of the mask; -1 and null never switch.",
        ge=-1,
        only=BADAM,
    )
    badam_update_ratio: float = param(
        0.05,
        "Share of the entries of each weight that BAdam's ratio mode updates.",
        gt=0,
        le=1,
        only=MASKS,
    )
    badam_mask_mode: str = param(
        "adjacent",
        "Layout of BAdam's mask: neighbouring entries, or scattered ones.",
        choices=("adjacent", "scatter"),
        only=MASKS,
    )
    badam_verbose: int = param(
        0,
        "What BAdam logs at a switch: 0 nothing, 1 the block or mask, 2 its trainable parameters too.",
        ge=0,
        le=2,
        only=BADAM,
    )
    # GaLore: Zhao et al. 2024, arXiv:2403.03507
    galore_target: str = param(
        "all",
        "Linear layers to apply GaLore to, by parts of their path (q_proj, mlp), separated by commas; all = every one "
        "but the head. Other weights use AdamW.",
        only=GALORE,
    )
    galore_rank: int = param(
        16, "Rank of GaLore's gradient projection, at most a matrix's shorter dimension.", ge=1, only=GALORE
    )
    galore_update_interval: int = param(
        200, "Steps between updates of GaLore's projection.", ge=1, only=GALORE
    )
    galore_scale: float = param(0.25, "Factor of the projected update.", gt=0, only=GALORE)
    galore_proj_type: str = param(
        "std",
        "Side of GaLore's projection: std projects a matrix's shorter dimension, reverse_std the longer, full both.",
        choices=("std", "reverse_std", "right", "left", "full"),
        only=GALORE,
    )
    galore_layerwise: bool = param(
        False,
        "Step each weight within the backward pass and free its gradient.",
        only=GALORE,
    )

    @property
    def layerwise_key(self) -> str | None:
        """The switch by which each weight is stepped within the backward pass, where it is on."""
        switches = {
            "apollo": ("optimizer.apollo_layerwise", self.apollo_layerwise),
            "galore": ("optimizer.galore_layerwise", self.galore_layerwise),
        }
        key, on = switches.get(self.name, (None, False))
        return key if on else None

    def adam_settings(self, learning_rate: float) -> dict[str, Any]:
        """The settings of AdamW, as PyTorch's optimizers take them; each group has its own weight decay."""
        betas = self.adam_beta1, self.adam_beta2
        return {"lr": learning_rate, "betas": betas, "eps": self.adam_epsilon}
