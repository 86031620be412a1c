"""Which type the weights have and whether the forward pass runs in mixed precision: one decision for a run."""

from dataclasses import dataclass

import torch

from llmf_hydra.config.choices import METHODS
from llmf_hydra.config.schema import Config


@dataclass(frozen=True)
class Precision:
    """Type of the base weights, and whether autocast computes in bfloat16 on top of float32 weights."""

    weights: torch.dtype
    autocast: bool


def decide(cfg: Config) -> Precision:
    """The precision of a run.

    Adapters keep their frozen base in the compute type and are float32 themselves. Weights that are trained stay
    float32, since small updates are lost in bfloat16, and compute in mixed precision where the hardware has
    bfloat16; `pure_bf16` asks for bfloat16 throughout.
    """
    training, dtype = cfg.training, compute_dtype(cfg.model.compute_dtype)
    if training.pure_bf16:
        return Precision(torch.bfloat16, autocast=False)
    if training.bf16:
        return Precision(torch.float32, autocast=True)
    if METHODS[cfg.method.name].adapters:
        return Precision(dtype, autocast=False)
    mixed = dtype == torch.bfloat16 and training.bf16 is None
    return Precision(torch.float32 if mixed else dtype, autocast=mixed)


def at_inference(cfg: Config) -> torch.dtype:
    """The type of the weights where nothing is trained."""
    asked = cfg.model.infer_dtype
    return compute_dtype(cfg.model.compute_dtype if asked == "auto" else asked)


def compute_dtype(name: str | None) -> torch.dtype:
    """The type of that name; without one, bfloat16 where the hardware has it, else float32."""
    if name is not None:
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]
    return torch.bfloat16 if _has_bfloat16() else torch.float32


def _has_bfloat16() -> bool:
    """Whether arithmetic in bfloat16 is native here. On a CPU without it, float32 is the faster one."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
