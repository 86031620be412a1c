"""`method=lora`: low-rank adapters on frozen weights (Hu et al. 2021, arXiv:2106.09685), by PEFT."""

from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel

from llmf_hydra.config.method import Method
from llmf_hydra.methods.modules import check_modules, names, scores


def apply(model: PreTrainedModel, method: Method, *, pure: bool) -> PeftModel:
    """The model with adapters; `pure` keeps them in the base's type instead of float32.

    Raises Refused if a named module isn't there or can't take an adapter.
    """
    extra = names(method.additional_target)
    check_modules(model, "method.additional_target", extra)
    config = LoraConfig(
        task_type="SEQ_CLS"
        if scores(model)
        else "CAUSAL_LM",  # SEQ_CLS trains and saves the head of scores whole
        r=method.lora_rank,
        lora_alpha=method.alpha,
        lora_dropout=method.lora_dropout,
        target_modules=_targets(model, method),
        modules_to_save=_paths(model, extra) or None,
        use_rslora=method.use_rslora,
        use_dora=method.use_dora,
    )
    return get_peft_model(model, config, autocast_adapter_dtype=not pure)


def _targets(model: PreTrainedModel, method: Method) -> str | list[str]:
    targets = names(method.lora_target)
    if targets == ["all"]:
        return "all-linear"
    check_modules(model, "method.lora_target", targets)
    return targets


def _paths(model: PreTrainedModel, wanted: list[str]) -> list[str]:
    """Their whole paths: PEFT takes any module whose path ends so, and `input_layernorm` ends with `norm`."""
    paths = [path for path, _ in model.named_modules()]
    return [path for path in paths if any(f".{path}".endswith(f".{name}") for name in wanted)]
