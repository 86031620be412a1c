"""The reference model of the preference stages, where it is a model of its own."""

from dataclasses import replace

import torch
from transformers import BitsAndBytesConfig, PreTrainedModel

from llmf_hydra import optional
from llmf_hydra.config.groups.model import ModelConfig
from llmf_hydra.config.groups.rlhf import RlhfConfig
from llmf_hydra.config.names import names
from llmf_hydra.errors import Problem, Refused
from llmf_hydra.models.adapters import put_on
from llmf_hydra.models.load import another, load_model


def load_reference(
    rlhf: RlhfConfig, model: ModelConfig, dtype: torch.dtype, vocabulary: int
) -> PreTrainedModel:
    """The model of `ref_model`, or the run's own, with `ref_model_adapters` merged, or quantized. Raises Refused.

    `vocabulary` is the policy's: both must know the same tokens.
    """
    named = replace(model, train_from_scratch=False)
    if rlhf.ref_model is not None:
        named = another(model, rlhf.ref_model)
    loaded = load_model(named, dtype, **quantized(rlhf.ref_model_quantization_bit, dtype))
    if loaded.config.vocab_size != vocabulary:
        what = f"knows {loaded.config.vocab_size} tokens and the trained model {vocabulary}"
        raise Refused(
            [Problem("rlhf.ref_model", rlhf.ref_model, what, "name a model with the same tokenizer")]
        )
    return _adapted(loaded, rlhf, model).requires_grad_(False)


def _adapted(reference: PreTrainedModel, rlhf: RlhfConfig, model: ModelConfig) -> PreTrainedModel:
    """With the adapters of the reference; those that the run starts from are its own model's, if none are named."""
    key, given = "rlhf.ref_model_adapters", rlhf.ref_model_adapters
    if given is None and rlhf.ref_model is None:
        key, given = "model.adapter_name_or_path", model.adapter_name_or_path
    merged = rlhf.ref_model_quantization_bit is None
    return put_on(reference, names(given), key, merged=merged)  # pyright: ignore[reportReturnType]  # as good


def quantized(
    bits: int | None, dtype: torch.dtype, key: str = "rlhf.ref_model_quantization_bit"
) -> dict[str, object]:
    """What `load_model` needs beside to quantize with bitsandbytes; nothing for None. Raises Refused."""
    if bits is None:
        return {}
    optional.require("bitsandbytes", extra="bnb", key=key)
    four = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
    return {"quantization_config": four if bits == 4 else BitsAndBytesConfig(load_in_8bit=True)}
