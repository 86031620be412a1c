"""Quantized weights: the linear layers of a model in a few bits, on which adapters are trained in full precision
(QLoRA, Dettmers et al. 2023, arXiv:2305.14314).

Embeddings, norms and the output head stay as they are. The policy, a reference and a reward model are all quantized
here.
"""

import os
from dataclasses import replace
from importlib import import_module
from typing import Any, cast

import torch
from torch import nn
from transformers import BitsAndBytesConfig, EetqConfig, PreTrainedModel

from llmf_hydra import optional
from llmf_hydra.config.groups.method import MethodConfig
from llmf_hydra.config.groups.quantization import QuantizationConfig
from llmf_hydra.config.names import names
from llmf_hydra.errors import Problem, Refused
from llmf_hydra.runs import ranks

FULL_PRECISION = QuantizationConfig()
GROUP = 64  # weights that share HQQ's scale and zero point
ALL = "all"  # of method.lora_target: every linear layer
REPACKS = "support_avx512bf16_for_cpu"  # of bitsandbytes' layers
OWN_LAYERS = ("HQQLinear", "EetqLinear")  # linear layers that are no nn.Linear


def bits_alone(bits: int | None) -> QuantizationConfig:
    """bitsandbytes with so many bits, NF4 with quantized constants where they are 4; full precision for None."""
    return replace(FULL_PRECISION, quantization_bit=bits)


def loading_options(quantization: QuantizationConfig, dtype: torch.dtype) -> dict[str, Any]:
    """What `from_pretrained` needs beside, to quantize while it loads; nothing for HQQ, which quantizes afterwards.

    `dtype` is the type in which the weights compute.
    """
    bits = quantization.quantization_bit
    if bits is None or quantization.library == "hqq":
        return {}
    return {
        "quantization_config": _as_transformers(quantization, dtype),
        "device_map": _device_map(quantization),
    }


def finish(model: PreTrainedModel, quantization: QuantizationConfig, dtype: torch.dtype) -> PreTrainedModel:
    """The loaded model, quantized where its library doesn't do that while it loads."""
    if quantization.quantization_bit is not None and quantization.library == "hqq":
        _with_hqq(model, quantization.quantization_bit, dtype)
    return _kept_differentiable(model)


def quantize(model: PreTrainedModel, quantization: QuantizationConfig, dtype: torch.dtype) -> PreTrainedModel:
    """A model in full precision, such as one with merged adapters, as if it had been quantized while it was loaded."""
    options = loading_options(quantization, dtype)
    if not options:
        return finish(model, quantization, dtype)
    name, generation, config = model.name_or_path, model.generation_config, model.config
    whole = type(model).from_pretrained(
        None, config=config, state_dict=model.state_dict(), dtype=dtype, **options
    )  # fmt: skip
    quantized = cast("PreTrainedModel", whole)
    quantized.name_or_path = quantized.config.name_or_path = name
    quantized.generation_config = generation
    return finish(quantized, quantization, dtype)


def with_targets(method: MethodConfig, model: nn.Module) -> MethodConfig:
    """The method, `lora_target=all` written out for linear layers of which PEFT's `all-linear` knows nothing.

    Raises Refused for quantized modules that were to be trained in full.
    """
    _check_whole(method, model)
    layers = {
        path.rpartition(".")[2]
        for path, module in model.named_modules()
        if type(module).__name__ in OWN_LAYERS
    }
    if not layers or names(method.lora_target) != [ALL]:
        return method
    return replace(method, lora_target=",".join(sorted(layers)))


def size(model: nn.Module, quantization: QuantizationConfig, dtype: torch.dtype) -> int:
    """Bytes of the weights of a model that isn't quantized yet, and may lie on the meta device, once it is."""
    whole = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    if quantization.quantization_bit is None:
        return whole
    linear = [module for _, module in _linear(model)]
    plain = sum(module.weight.numel() * module.weight.element_size() for module in linear)
    return whole - plain + round(sum(_bytes(module, quantization, dtype) for module in linear))


def _bytes(layer: nn.Linear, quantization: QuantizationConfig, dtype: torch.dtype) -> float:
    """Bytes of a layer's weight with its constants."""
    count, bits = layer.weight.numel(), cast("int", quantization.quantization_bit)
    if quantization.library == "hqq":
        packed = 32 / 10 if bits == 3 else bits  # ten 3-bit numbers in 32 bits
        return count * packed / 8 + 2 * dtype.itemsize * count / GROUP
    if bits == 8:
        return count + 4 * layer.out_features
    # A float32 per block of 64 weights; itself in 8 bits, with a float32 per 256 of them.
    constant = (1 + 4 / 256) if quantization.double_quantization else 4
    return count / 2 + constant * count / 64


def _kept_differentiable(model: PreTrainedModel) -> PreTrainedModel:
    """Have bitsandbytes keep its 4-bit weights as they are in evaluation mode.

    On CPUs with bfloat16 it repacks them at the first evaluation, for a kernel that has no gradient: from then on
    nothing would reach the adapters below.
    """
    for module in model.modules():
        if REPACKS in vars(module):
            vars(module)[REPACKS] = False
    return model


def _as_transformers(quantization: QuantizationConfig, dtype: torch.dtype) -> BitsAndBytesConfig | EetqConfig:
    if quantization.library == "eetq":
        return EetqConfig("int8")
    if quantization.quantization_bit == 8:
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantization.quantization_type,
        bnb_4bit_use_double_quant=quantization.double_quantization,
        bnb_4bit_compute_dtype=dtype,
    )


def _device_map(quantization: QuantizationConfig) -> str | dict[str, str]:
    """Where the weights go: over all devices at inference, where that is asked for, else this process's own."""
    return quantization.quantization_device_map or {"": _device()}


def _device() -> str:
    return f"cuda:{os.environ.get(ranks.LOCAL, '0')}" if torch.cuda.is_available() else "cpu"


def _linear(model: nn.Module) -> list[tuple[str, nn.Linear]]:
    """The layers that are quantized: each linear one but the output head and a head of scores."""
    heads = {"lm_head", "score"}
    output = model.get_output_embeddings() if isinstance(model, PreTrainedModel) else None
    return [
        (path, module)
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not output and path.rpartition(".")[2] not in heads
    ]


def _with_hqq(model: PreTrainedModel, bits: int, dtype: torch.dtype) -> None:
    """Replace the linear layers, one after another, so that no second copy is held.

    By the library itself: Transformers 5 refuses its `HqqConfig`.
    """
    optional.require("hqq", extra="hqq", key="quantization.quantization_method=hqq")
    core = import_module("hqq.core.quantize")
    settings = core.BaseQuantizeConfig(nbits=bits, group_size=GROUP)
    for path, layer in _linear(model):
        if layer.weight.numel() % GROUP:
            what = f"quantizes groups of {GROUP} weights, and {path} has {layer.weight.numel()}"
            raise Refused([Problem("quantization.quantization_method", "hqq", what, "choose bitsandbytes")])
        made = core.HQQLinear(layer, settings, compute_dtype=dtype, device=_device(), del_orig=True)
        model.set_submodule(path, made)


def _check_whole(method: MethodConfig, model: nn.Module) -> None:
    """Raise Refused where a module that is to be trained whole has quantized weights."""
    wanted = names(method.additional_target)
    for path, module in model.named_modules():
        if any(f".{path}".endswith(f".{name}") for name in wanted) and _holds_no_numbers(module):
            what = f"{path} is quantized, and quantized weights are not trained"
            remedy = "name modules that stay in full precision, such as norms, embed_tokens or lm_head"
            raise Refused([Problem("method.additional_target", method.additional_target, what, remedy)])


def _holds_no_numbers(module: nn.Module) -> bool:
    return any(not weight.is_floating_point() for weight in module.parameters())
