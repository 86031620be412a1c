"""`method=lora`: low-rank adapters on frozen weights (Hu et al. 2021, arXiv:2106.09685), by PEFT."""

from peft import LoraConfig, PeftModel
from transformers import PreTrainedModel

from llmf_hydra.config.groups.method import MethodConfig
from llmf_hydra.config.names import names
from llmf_hydra.methods import llama_pro, loraplus, pissa, vision
from llmf_hydra.methods.adapters import like, load, put_on, task_of, whole_paths
from llmf_hydra.methods.modules import check_modules, targets

__all__ = ["apply", "like", "load"]
TARGET = "method.lora_target"


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
    config = LoraConfig(
        task_type=task_of(model),
        r=method.lora_rank,
        lora_alpha=method.alpha,
        lora_dropout=method.lora_dropout,
        target_modules=targets(model, TARGET, names(method.lora_target), spared),
        modules_to_save=whole_paths(model, extra) or None,
        ensure_weight_tying=_trains_tied(model, extra),
        use_rslora=method.use_rslora,
        use_dora=method.use_dora,
    )
    adapted = put_on(model, config, TARGET, method.lora_target, pure=pure)
    loraplus.check(adapted, method)
    if method.pissa_init:
        pissa.initialize(adapted, method)
    return adapted


def _trains_tied(model: PreTrainedModel, wanted: list[str]) -> bool:
    """Whether embeddings are trained whole that are the output head too, and must stay so."""
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is None or head.weight is not embeddings.weight:
        return False
    paths = whole_paths(model, wanted)
    return any(model.get_submodule(path) in (embeddings, head) for path in paths)
