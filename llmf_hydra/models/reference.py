"""The reference model of the preference stages, where it is a model of its own."""

from contextlib import nullcontext
from dataclasses import replace

import torch
from transformers import PreTrainedModel

from llmf_hydra.config.groups.model import ModelConfig
from llmf_hydra.config.groups.rlhf import RlhfConfig
from llmf_hydra.config.names import names
from llmf_hydra.errors import Problem, Refused
from llmf_hydra.models.adapters import put_on
from llmf_hydra.models.load import another, load_model, told_of
from llmf_hydra.models.quantization.weights import bits_alone


def load_reference(
    rlhf: RlhfConfig, model: ModelConfig, dtype: torch.dtype, vocabulary: int
) -> PreTrainedModel:
    """The model of `ref_model`, or the run's own, with `ref_model_adapters` merged, or quantized. Raises Refused.

    `vocabulary` is the policy's: both must know the same tokens.
    """
    named = replace(model, train_from_scratch=False)
    if rlhf.ref_model is not None:
        named = another(model, rlhf.ref_model)
    with told_of("rlhf.ref_model") if rlhf.ref_model is not None else nullcontext():
        loaded = load_model(named, dtype, bits_alone(rlhf.ref_model_quantization_bit))
    if loaded.config.vocab_size != vocabulary:
        what = f"knows {loaded.config.vocab_size} tokens and the trained model {vocabulary}"
        raise Refused(
            [Problem("rlhf.ref_model", rlhf.ref_model, what, "name a model with the same tokenizer")]
        )
    return _adapted(loaded, rlhf, model).requires_grad_(False)


def _adapted(reference: PreTrainedModel, rlhf: RlhfConfig, model: ModelConfig) -> PreTrainedModel:
    """With the adapters of the reference; those that the run starts from are its own model's, if none are named."""
    key, given = "rlhf.ref_model_adapters", names(rlhf.ref_model_adapters)
    if not given and rlhf.ref_model is None:
        key, given = "model.adapter_name_or_path", model.adapters
    merged = rlhf.ref_model_quantization_bit is None
    return put_on(reference, given, key, model, merged=merged)  # pyright: ignore[reportReturnType]  # as good
