"""Rules of the model and its precision."""

from collections.abc import Iterator

from llmf_hydra.checks.register import rule
from llmf_hydra.config.choices import METHODS
from llmf_hydra.config.schema import Config
from llmf_hydra.errors import Problem


@rule("model.model_name_or_path")
def a_model_is_named(cfg: Config) -> Iterator[Problem]:
    """Every run needs a model."""
    if cfg.model.model_name_or_path is None:
        yield Problem(
            "model.model_name_or_path",
            None,
            "no model is named",
            "choose model=smollm2 or model=tiny, or give a folder or hub name",
        )


@rule("training.pure_bf16", "model.compute_dtype", "training.bf16")
def one_precision(cfg: Config) -> Iterator[Problem]:
    """pure_bf16 keeps weights and arithmetic in bfloat16: it admits no other type and no mixed precision."""
    training, dtype = cfg.training, cfg.model.compute_dtype
    if training.pure_bf16 and dtype not in (None, "bfloat16"):
        yield Problem(
            "training.pure_bf16", True, f"contradicts model.compute_dtype={dtype}", "give one of them"
        )
    if training.pure_bf16 and training.bf16:
        yield Problem(
            "training.bf16",
            True,
            "is mixed precision and contradicts training.pure_bf16=true",
            "give one of them",
        )
    if training.bf16 and dtype == "bfloat16":
        yield Problem(
            "training.bf16",
            True,
            "has no effect on weights in bfloat16 (model.compute_dtype=bfloat16)",
            "set model.compute_dtype=float32 for mixed precision, or leave training.bf16 out",
        )


@rule("model.compute_dtype", "method.name")
def trained_weights_need_range(cfg: Config) -> Iterator[Problem]:
    """Weights that are trained overflow in float16: it is for the frozen base under adapters only."""
    if cfg.model.compute_dtype == "float16" and not METHODS[cfg.method.name].adapters:
        yield Problem(
            "model.compute_dtype",
            "float16",
            f"overflows in trained weights (method={cfg.method.name})",
            "choose bfloat16 or float32",
        )
