"""`method=lora`: low-rank adapters on frozen weights (Hu et al. 2021, arXiv:2106.09685), by PEFT."""

from peft import (
    LoraConfig,
    PeftConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    load_peft_weights,
    set_peft_model_state_dict,
)
from transformers import PreTrainedModel

from llmf_hydra.checks.scorer import HEAD, TASK
from llmf_hydra.config.groups.method import MethodConfig
from llmf_hydra.config.names import names
from llmf_hydra.errors import Problem, Refused
from llmf_hydra.methods.modules import check_modules, scores


def apply(model: PreTrainedModel, method: MethodConfig, *, pure: bool) -> PeftModel:
    """The model with adapters; `pure` keeps them in the base's type instead of float32.

    Raises Refused if a named module isn't there or can't take an adapter.
    """
    extra = names(method.additional_target)
    check_modules(model, "method.additional_target", extra)
    config = LoraConfig(
        task_type=TASK if scores(model) else "CAUSAL_LM",  # SEQ_CLS trains and saves the head of scores whole
        r=method.lora_rank,
        lora_alpha=method.alpha,
        lora_dropout=method.lora_dropout,
        target_modules=_targets(model, method),
        modules_to_save=_paths(model, extra) or None,
        ensure_weight_tying=_trains_tied(model, extra),
        use_rslora=method.use_rslora,
        use_dora=method.use_dora,
    )
    return get_peft_model(model, config, autocast_adapter_dtype=not pure)


def like(model: PreTrainedModel | PeftModel, adapter: str, *, pure: bool) -> PeftModel:
    """The model with a fresh adapter of a saved one's shape. Raises Refused.

    A head of scores is trained and saved whole beside it, also if the saved one was trained on text.
    """
    try:
        config = PeftConfig.from_pretrained(adapter)
    except (OSError, ValueError) as error:
        raise _refused(adapter, error) from error
    config.inference_mode = False
    if scores(model):
        config.task_type = TASK
    return get_peft_model(model, config, autocast_adapter_dtype=not pure)  # pyright: ignore


def load(model: PeftModel, adapter: str) -> PeftModel:
    """The saved adapter's weights in place of the fresh ones; a head that it hasn't stays random. Raises Refused."""
    fresh = get_peft_model_state_dict(model)
    head = {name: weight for name, weight in fresh.items() if f".{HEAD}." in name}
    try:
        saved = head | load_peft_weights(adapter, device="cpu")
    except (OSError, ValueError) as error:
        raise _refused(adapter, error) from error
    odd = sorted(fresh.keys() ^ saved.keys())
    odd += [name for name in fresh if name not in odd and fresh[name].shape != saved[name].shape]
    if odd:
        raise _refused(adapter, f"its weights aren't those that its config describes on this model: {odd[0]}")
    set_peft_model_state_dict(model, saved)
    return model


def _refused(adapter: str, why: object) -> Refused:
    return Refused([Problem("model.adapter_name_or_path", adapter, str(why).strip().splitlines()[0])])


def _targets(model: PreTrainedModel, method: MethodConfig) -> str | list[str]:
    targets = names(method.lora_target)
    if targets == ["all"]:
        return "all-linear"
    check_modules(model, "method.lora_target", targets)
    return targets


def _trains_tied(model: PreTrainedModel, wanted: list[str]) -> bool:
    """Whether embeddings are trained whole that are the output head too, and must stay so."""
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is None or head.weight is not embeddings.weight:
        return False
    paths = _paths(model, wanted)
    return any(model.get_submodule(path) in (embeddings, head) for path in paths)


def _paths(model: PreTrainedModel, wanted: list[str]) -> list[str]:
    """Their whole paths: PEFT takes any module whose path ends so, and `input_layernorm` ends with `norm`."""
    paths = [path for path, _ in model.named_modules()]
    return [path for path in paths if any(f".{path}".endswith(f".{name}") for name in wanted)]
