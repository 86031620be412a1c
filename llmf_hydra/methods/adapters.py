"""What the methods with adapters share: putting them on, loading saved ones, and a copy of what a run started from."""

from pathlib import Path

import torch
from peft import (
    PeftConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    load_peft_weights,
    set_peft_model_state_dict,
)
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

from llmf_hydra.checks.scorer import HEAD, TASK
from llmf_hydra.errors import Problem, Refused
from llmf_hydra.methods.modules import ends_with, scores

Weights = dict[str, torch.Tensor]
START = "ref"  # PEFT's name of a frozen copy of the adapter that the run started from


def task_of(model: PreTrainedModel) -> str:
    """PEFT's task of an adapter: SEQ_CLS trains and saves the head of scores whole."""
    return TASK if scores(model) else "CAUSAL_LM"


def put_on(
    model: PreTrainedModel | PeftModel, config: PeftConfig, key: str, value: str, *, pure: bool
) -> PeftModel:
    """The model with a fresh adapter; `pure` keeps it in the base's type instead of float32.

    Raises Refused, under the key that decided the config, for what PEFT can't do on this model.
    """
    try:
        return get_peft_model(model, config, autocast_adapter_dtype=not pure)  # pyright: ignore
    except ValueError as error:
        raise Refused([Problem(key, value, str(error).strip().splitlines()[0])]) from error


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
    return put_on(model, config, "model.adapter_name_or_path", adapter, pure=pure)


def load(model: PeftModel, adapter: str) -> PeftModel:
    """The saved adapter's weights in place of the fresh ones; a head that it hasn't stays random. Raises Refused."""
    fresh = get_peft_model_state_dict(model)
    try:
        saved = load_peft_weights(adapter, device="cpu")
    except (OSError, ValueError) as error:
        raise _refused(adapter, error) from error
    _check(fresh, saved, adapter)
    set_peft_model_state_dict(model, _heads(fresh) | saved)
    return model


def check_saved(model: PeftModel, adapter: str) -> None:
    """Raise Refused for a saved adapter whose weights, of which only names and shapes are read, aren't those of the
    fresh one on the model, which may lie on the meta device. Older files than safetensors aren't looked into."""
    file = Path(adapter, SAFETENSORS_WEIGHTS_NAME)
    if not file.is_file():
        return
    try:
        with safe_open(file, framework="pt") as stored:
            shapes = {
                name: torch.empty(stored.get_slice(name).get_shape(), device="meta")
                for name in stored.keys()  # noqa: SIM118
            }
    except SafetensorError as error:
        raise _refused(adapter, error) from error
    _check(get_peft_model_state_dict(model), shapes, adapter)


def _heads(fresh: Weights) -> Weights:
    return {name: weight for name, weight in fresh.items() if f".{HEAD}." in name}


def _check(fresh: Weights, saved: Weights, adapter: str) -> None:
    """Raise Refused where names or shapes differ."""
    saved = _heads(fresh) | saved
    odd = sorted(fresh.keys() ^ saved.keys())
    odd += [name for name in fresh if name not in odd and fresh[name].shape != saved[name].shape]
    if odd:
        what = f"its weights aren't those that its config describes on this model: {odd[0]}"
        if any("embed_tokens" in name or "lm_head" in name for name in odd):
            what += "; if it was trained with new tokens, set model.new_special_tokens and model.resize_vocab as then"
        raise _refused(adapter, what)


@torch.no_grad()
def keep_start(policy: PeftModel) -> None:
    """Keep a frozen copy of the active adapter as the adapter `ref`, which is never active in training."""
    active = str(policy.active_adapter)
    policy.add_adapter(START, policy.peft_config[active])
    saved = get_peft_model_state_dict(policy, adapter_name=active)
    start = {name: weight.clone() for name, weight in saved.items()}
    set_peft_model_state_dict(policy, start, adapter_name=START)
    policy.set_adapter(active)


def whole_paths(model: PreTrainedModel, wanted: list[str]) -> list[str]:
    """The whole paths of modules: PEFT takes any module whose path ends so, and `input_layernorm` ends with `norm`."""
    return [path for path, _ in model.named_modules() if any(ends_with(path, name) for name in wanted)]


def _refused(adapter: str, why: object) -> Refused:
    return Refused([Problem("model.adapter_name_or_path", adapter, str(why).strip().splitlines()[0])])
