"""`method=lora`: low-rank adapters on frozen weights (Hu et al. 2021, arXiv:2106.09685), by PEFT."""

from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import PreTrainedModel

from llmf_hydra.config.method import Method
from llmf_hydra.errors import Problem, Refused, did_you_mean


def apply(model: PreTrainedModel, method: Method, *, pure: bool) -> PeftModel:
    """The model with adapters; `pure` keeps them in the base's type instead of float32.

    Raises Refused if a named module isn't there or can't take an adapter.
    """
    extra = _names(method.additional_target)
    check_modules(model, "method.additional_target", extra)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=method.lora_rank,
        lora_alpha=method.alpha,
        lora_dropout=method.lora_dropout,
        target_modules=_targets(model, method),
        modules_to_save=extra or None,
        use_rslora=method.use_rslora,
        use_dora=method.use_dora,
    )
    return get_peft_model(model, config, autocast_adapter_dtype=not pure)


def check_modules(model: nn.Module, key: str, names: list[str]) -> None:
    """Raise Refused for each name that is the last part of no module's path."""
    known = {path.rpartition(".")[2] for path, _ in model.named_modules() if path}
    unknown = [name for name in names if name.rpartition(".")[2] not in known]
    if unknown:
        raise Refused([Problem(key, name, "the model has no such module", did_you_mean(name, known)) for name in unknown])


def _targets(model: PreTrainedModel, method: Method) -> str | list[str]:
    names = _names(method.lora_target)
    if names == ["all"]:
        return "all-linear"
    check_modules(model, "method.lora_target", names)
    return names


def _names(words: str | None) -> list[str]:
    return [word.strip() for word in words.split(",")] if words else []
