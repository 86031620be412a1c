"""What the group `model` asks of a network: of its config before the weights are there, then of the loaded network."""

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import PretrainedConfig, PreTrainedModel

from llmf_hydra.config.groups.model import ModelConfig
from llmf_hydra.errors import Problem, Refused
from llmf_hydra.models.architecture import (
    experts,
    kernels,
    mixture_of_depths,
    rope,
    shifted_attention,
    upcast,
)
from llmf_hydra.models.architecture.checkpointing import offload_checkpoints
from llmf_hydra.models.architecture.fits import SHIFTED
from llmf_hydra.models.network import Network
from llmf_hydra.models.precision import Precision

# The specification's flash_attn -> Transformers' name.
ATTENTION = {"auto": None, "disabled": "eager", "sdpa": "sdpa", "fa2": "flash_attention_2"}


def attention(model: ModelConfig) -> str | None:
    """Transformers' name of the attention that is asked for; None lets it choose."""
    return shifted_attention.register() if model.shift_attn else ATTENTION[model.flash_attn]


def configure(config: PretrainedConfig, model: ModelConfig) -> PretrainedConfig:
    """The model's config with what changes in it. Raises Refused."""
    rope.scale(config, model)
    experts.weigh_balance(config, model)
    mixture_of_depths.configure(config, model)
    kind = config.get_text_config().model_type
    if model.shift_attn and kind not in SHIFTED:
        what = f"is built for {', '.join(SHIFTED)} models, and this is a {kind} model"
        raise Refused([Problem("model.shift_attn", True, what, "leave it out")])
    return config


def check_precision(model: ModelConfig, precision: Precision) -> None:
    """Raise Refused for parts in float32 of a model that computes in float32 anyway."""
    single = precision.weights == torch.float32
    idle = {"upcast_layernorm": single, "upcast_lmhead_output": single and not precision.autocast}
    asked: dict[str, Any] = {name: getattr(model, name) for name in idle}
    problems = [
        Problem(f"model.{name}", True, "has no effect: the model computes in float32 there",
                "set model.compute_dtype=bfloat16 with method=lora, or training.pure_bf16=true")
        for name, without in idle.items() if without and asked[name]
    ]  # fmt: skip
    if problems:
        raise Refused(problems)


def finish(network: PreTrainedModel, model: ModelConfig, folder: str) -> PreTrainedModel:
    """The loaded network with what is changed in it; `folder` is where its files lie. Raises Refused."""
    if model.rope_scaling == "dynamic":
        rope.follow_each_input(network)
    if model.mixture_of_depths is not None:
        mixture_of_depths.convert(network)
    if model.mixture_of_depths == "load":
        mixture_of_depths.load_routers(network, Path(folder))
    if model.use_unsloth_gc:
        offload_checkpoints(network)
    if model.enable_liger_kernel:
        kernels.apply_liger(network)
    if model.upcast_layernorm:
        upcast.upcast_norms(network)
    if model.upcast_lmhead_output:
        upcast.upcast_head(network)
    return network


def save_changed_config(network: Network, folder: str, model: ModelConfig) -> None:
    """Beside an adapter: the config of its base, where that isn't the one in the base's folder."""
    if isinstance(network, PeftModel) and model.rope_scaling is not None:
        network.config.save_pretrained(folder)
