"""Group `optimizer`: the optimizer and its own settings (spec tables apollo, badam, galore)."""

from dataclasses import dataclass

from llmf_hydra.config.choices import OPTIMIZERS, planned
from llmf_hydra.config.param import param

APOLLO = {"optimizer.name": ("apollo",)}
BADAM = {"optimizer.name": ("badam",)}
GALORE = {"optimizer.name": ("galore",)}
ADAMW = {"optimizer.name": ("adamw",)}


@dataclass
class OptimizerConfig:
    name: str = param(
        "adamw",
        "Optimizer.",
        choices=tuple(OPTIMIZERS),
        planned_choices=planned(OPTIMIZERS),
    )
    weight_decay: float = param(0.0, "Weight decay, not applied to biases and norms.", ge=0)
    adam_beta1: float = param(0.9, "Adam's beta1.", ge=0, lt=1, only=ADAMW)
    adam_beta2: float = param(0.999, "Adam's beta2.", ge=0, lt=1, only=ADAMW)
    adam_epsilon: float = param(1e-8, "Adam's epsilon.", gt=0, only=ADAMW)
    # APOLLO: Zhu et al. 2024, arXiv:2412.05270
    apollo_target: str = param(
        "all",
        "Modules to apply APOLLO to, separated by commas; all = every linear layer.",
        only=APOLLO,
        planned=True,
    )
    apollo_rank: int = param(16, "Rank of APOLLO's gradient projection.", ge=1, only=APOLLO, planned=True)
    apollo_update_interval: int = param(
        200, "Steps between updates of APOLLO's projection.", ge=1, only=APOLLO, planned=True
    )
    apollo_scale: float = param(32.0, "APOLLO's scaling factor.", gt=0, only=APOLLO, planned=True)
    apollo_proj: str = param(
        "random", "APOLLO's projection: svd or random.", choices=("svd", "random"), only=APOLLO, planned=True
    )
    apollo_proj_type: str = param(
        "std", "Side of APOLLO's projection.", choices=("std", "right", "left"), only=APOLLO, planned=True
    )
    apollo_scale_type: str = param(
        "channel",
        "APOLLO's scaling: channel or tensor.",
        choices=("channel", "tensor"),
        only=APOLLO,
        planned=True,
    )
    apollo_layerwise: bool = param(False, "Update layer by layer to save memory.", only=APOLLO, planned=True)
    apollo_scale_front: bool = param(
        False, "Apply the norm-growth limiter before scaling the gradient.", only=APOLLO, planned=True
    )
    # BAdam: Luo et al. 2024, arXiv:2404.02827
    badam_mode: str = param(
        "layer", "BAdam mode: layer-wise or ratio-wise.", choices=("layer", "ratio"), only=BADAM, planned=True
    )
    badam_start_block: int | None = param(
        None, "Index of BAdam's first block.", ge=0, only=BADAM, planned=True
    )
    badam_switch_mode: str | None = param(
        "ascending",
        "Order in which BAdam switches blocks.",
        choices=("ascending", "descending", "random", "fixed"),
        only=BADAM,
        planned=True,
    )
    badam_switch_interval: int | None = param(
        50, "Steps between BAdam's block switches; -1 never switches.", ge=-1, only=BADAM, planned=True
    )
    badam_update_ratio: float = param(
        0.05,
        "Fraction of the parameters that BAdam's ratio mode updates.",
        gt=0,
        le=1,
        only=BADAM,
        planned=True,
    )
    badam_mask_mode: str = param(
        "adjacent", "Layout of BAdam's mask.", choices=("adjacent", "scatter"), only=BADAM, planned=True
    )
    badam_verbose: int = param(
        0,
        "BAdam's verbosity: 0 nothing, 1 the block, 2 the trainable parameters.",
        ge=0,
        le=2,
        only=BADAM,
        planned=True,
    )
    # GaLore: Zhao et al. 2024, arXiv:2403.03507
    galore_target: str = param(
        "all",
        "Modules to apply GaLore to, separated by commas; all = every linear layer.",
        only=GALORE,
        planned=True,
    )
    galore_rank: int = param(16, "Rank of GaLore's gradient projection.", ge=1, only=GALORE, planned=True)
    galore_update_interval: int = param(
        200, "Steps between updates of GaLore's projection.", ge=1, only=GALORE, planned=True
    )
    galore_scale: float = param(0.25, "GaLore's scaling factor.", gt=0, only=GALORE, planned=True)
    galore_proj_type: str = param(
        "std",
        "Side of GaLore's projection.",
        choices=("std", "reverse_std", "right", "left", "full"),
        only=GALORE,
        planned=True,
    )
    galore_layerwise: bool = param(False, "Update layer by layer to save memory.", only=GALORE, planned=True)
