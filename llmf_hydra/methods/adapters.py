"""What the methods with adapters share: putting them on, loading saved ones, and a copy of what a run started from."""

import logging
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
from llmf_hydra.config.names import is_pattern
from llmf_hydra.errors import Problem, Refused
from llmf_hydra.methods.modules import ALL, ends_with, scores

log = logging.getLogger(__name__)
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
    except (ValueError, TypeError) as error:  # OFT raises the latter for a kind of layer that it can't take
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
    fresh = weights_of(model)
    try:
        saved = load_peft_weights(adapter, device="cpu")
    except (OSError, ValueError) as error:
        raise _refused(adapter, error) from error
    _check(model, saved, adapter)
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
    _check(model, shapes, adapter)


def weights_of(model: PeftModel, adapter: str | None = None, *, embeddings: bool = False) -> Weights:
    """The weights of an adapter, by default the active one, by the names under which they are saved; with `embeddings`
    those too that PEFT saves beside it where the vocabulary was resized."""
    name = adapter or str(model.active_adapter)
    return get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=embeddings)


def _heads(fresh: Weights) -> Weights:
    return {name: weight for name, weight in fresh.items() if f".{HEAD}." in name}


def _check(model: PeftModel, saved: Weights, adapter: str) -> None:
    """Raise Refused where names or shapes differ from those of the model's fresh adapter."""
    fresh, known = weights_of(model), weights_of(model, embeddings=True)
    saved = _heads(fresh) | saved
    odd = sorted((fresh.keys() - saved.keys()) | (saved.keys() - known.keys()))
    odd += sorted(name for name in known.keys() & saved.keys() if known[name].shape != saved[name].shape)
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
    start = {name: weight.clone() for name, weight in weights_of(policy, active).items()}
    set_peft_model_state_dict(policy, start, adapter_name=START)
    policy.set_adapter(active)


def check_apart(model: PreTrainedModel, key: str, wanted: list[str], whole: list[str]) -> None:
    """Raise Refused for a module that is to have an adapter and to be trained whole; PEFT would leave out the adapter
    in silence. What is trained whole is left out of `all` and of patterns."""
    paths = whole_paths(model, whole)
    if trains_tied(model, whole):
        layers = (model.get_input_embeddings(), model.get_output_embeddings())
        paths += [path for path, module in model.named_modules() if module in layers]
    names = [name for name in wanted if name != ALL and not is_pattern(name)]
    for name in names:
        if any(ends_with(path, name) for path in paths):
            what = (
                f"{name} is trained whole, for method.additional_target or new tokens, and takes no adapter"
            )
            raise Refused([Problem(key, ",".join(wanted), what, "leave it out of one of the two")])


def trains_tied(model: PreTrainedModel, wanted: list[str]) -> bool:
    """Whether modules are trained that hold the weight which embeddings and output head share."""
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is None or head.weight is not embeddings.weight:
        return False
    return any(model.get_submodule(path) in (embeddings, head) for path in whole_paths(model, wanted))


def tell_of_ties(model: PreTrainedModel, key: str, wanted: list[str]) -> None:
    """Warn that embeddings and output head, which share their weight, will have one each."""
    if trains_tied(model, wanted) and model.device.type != "meta":
        log.warning("%s changes one of the embeddings and the output head, which share their weight: the other stays "
                    "as it is, and a merged model has a weight for each", key)  # fmt: skip


def whole_paths(model: PreTrainedModel, wanted: list[str]) -> list[str]:
    """The whole paths of modules: PEFT takes any module whose path ends so, and `input_layernorm` ends with `norm`."""
    return [path for path, _ in model.named_modules() if any(ends_with(path, name) for name in wanted)]


def _refused(adapter: str, why: object) -> Refused:
    return Refused([Problem("model.adapter_name_or_path", adapter, str(why).strip().splitlines()[0])])
