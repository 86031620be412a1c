"""`method=lora`: low-rank adapters on frozen weights (Hu et al. 2021, arXiv:2106.09685), by PEFT."""

import logging
from typing import Any, cast

from peft import LoraConfig, PeftModel
from transformers import PreTrainedModel

from llmf_hydra.config.groups.method import MethodConfig
from llmf_hydra.config.names import names
from llmf_hydra.errors import Problem, Refused
from llmf_hydra.methods import llama_pro, loraplus, pissa, vision
from llmf_hydra.methods.adapters import (
    check_apart,
    like,
    load,
    put_on,
    task_of,
    tell_of_ties,
    trains_tied,
    whole_paths,
)
from llmf_hydra.methods.modules import ALL, check_modules, ends_with, is_linear, targets

__all__ = ["apply", "like", "load"]
TARGET, RANK = "method.lora_target", "method.lora_rank"
log = logging.getLogger(__name__)


def apply(model: PreTrainedModel, method: MethodConfig, *, pure: bool) -> PeftModel:
    """The model with adapters; `pure` keeps them in the base's type instead of float32.

    Raises Refused if a named module isn't there or can't take an adapter.
    """
    vision.check(model, method)
    extra = names(method.additional_target)
    check_modules(model, "method.additional_target", extra)
    spared = vision.frozen(model, method)
    if method.use_llama_pro:
        spared = [*spared, *llama_pro.other_layers(model)]
    check_apart(model, TARGET, names(method.lora_target), extra)
    tell_of_ties(model, TARGET, [name for name in names(method.lora_target) if name != ALL])
    wanted = targets(model, TARGET, names(method.lora_target), spared)
    _check_rank(model, wanted, method.lora_rank)
    config = LoraConfig(
        task_type=task_of(model),
        r=method.lora_rank,
        lora_alpha=method.alpha,
        lora_dropout=method.lora_dropout,
        target_modules=wanted,
        modules_to_save=whole_paths(model, extra) or None,
        ensure_weight_tying=trains_tied(model, extra),
        use_rslora=method.use_rslora,
        use_dora=method.use_dora,
    )
    adapted = put_on(model, config, TARGET, method.lora_target, pure=pure)
    loraplus.check(adapted, method)
    if method.pissa_init:
        pissa.initialize(adapted, method)
    return adapted


def _check_rank(model: PreTrainedModel, wanted: list[str], rank: int) -> None:
    """Raise Refused for a rank that no layer's update can have; warn of the layers whose update can't have it."""
    shorter = [
        min(cast(Any, module).in_features, cast(Any, module).out_features)
        for path, module in model.named_modules()
        if is_linear(module)
        and hasattr(module, "in_features")
        and any(ends_with(path, name) for name in wanted)
    ]
    if shorter and rank > max(shorter):
        what = "is above the shorter dimension of every targeted layer, and no update has a higher rank than that"
        raise Refused([Problem(RANK, rank, what, f"take {max(shorter)} or less, or choose method=full")])
    beyond = [size for size in shorter if size < rank]
    if beyond and model.device.type != "meta":
        log.warning("%s=%d is above the shorter dimension, %d or more, of %d of the %d targeted layers, whose update "
                    "has no higher rank than that", RANK, rank, min(beyond), len(beyond), len(shorter))  # fmt: skip
