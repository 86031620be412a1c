"""Tokenizer and weights."""

from dataclasses import replace
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from llmf_hydra.config.groups.model import ModelConfig
from llmf_hydra.errors import Problem, Refused
from llmf_hydra.models.architecture.apply import attention, configure, finish
from llmf_hydra.models.architecture.kernels import load_unsloth
from llmf_hydra.models.architecture.placement import placement
from llmf_hydra.models.ref import locate


def load_tokenizer(model: ModelConfig) -> PreTrainedTokenizerBase:
    """The model's tokenizer, with a padding token."""
    tokenizer = _from_hub(AutoTokenizer, model)
    tokenizer.split_special_tokens = model.split_special_tokens
    if model.model_max_length is not None:
        tokenizer.model_max_length = model.model_max_length
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_config(model: ModelConfig, **fields: object) -> PretrainedConfig:
    """The model's config, without its weights; `fields` stand in for its own. Raises Refused."""
    return configure(_from_hub(AutoConfig, model, **fields), model)


def load_model(model: ModelConfig, dtype: torch.dtype, **extra: Any) -> PreTrainedModel:
    """The model with its weights in `dtype`; random weights with `train_from_scratch`.

    `extra` goes to `from_pretrained`: a quantization, for one.
    """
    loaded = _loaded(AutoModelForCausalLM, model, dtype, **extra)
    loaded.config.use_cache = False  # of no use in training, and it breaks packing and checkpointing
    return loaded


def load_scorer(
    model: ModelConfig, dtype: torch.dtype, tokenizer: PreTrainedTokenizerBase, **extra: Any
) -> PreTrainedModel:
    """The model with a head that gives one number in place of text; the head starts random unless it was saved.

    The number is read at the last token that isn't padding, so the config must know the padding token.
    """
    loaded = _loaded(AutoModelForSequenceClassification, model, dtype, num_labels=1, **extra)
    config = loaded.config.get_text_config()
    config.use_cache, config.pad_token_id = False, tokenizer.pad_token_id
    return loaded


def another(model: ModelConfig, name: str | None) -> ModelConfig:
    """How a model beside the trained one is loaded: in the same way, without what changes the trained one."""
    return replace(
        model,
        model_name_or_path=name,
        model_revision="main",
        train_from_scratch=False,
        rope_scaling=None,
        shift_attn=False,
        mixture_of_depths=None,
        moe_aux_loss_coef=None,
        device_map=None,
        use_unsloth=False,
    )


def _loaded(factory, model: ModelConfig, dtype: torch.dtype, num_labels: int | None = None, **extra: object):
    options: dict[str, object] = {"dtype": dtype, "attn_implementation": attention(model)}
    config = load_config(model, **({} if num_labels is None else {"num_labels": num_labels}))
    if model.train_from_scratch:
        network = factory.from_config(config, trust_remote_code=model.trust_remote_code, **options)
    elif model.use_unsloth:
        network = load_unsloth(model, locate(model), dtype)
    else:
        network = _from_hub(factory, model, config=config, **options, **placement(model), **extra)
    return finish(network, model, locate(model))


def _from_hub(factory, model: ModelConfig, **options):  # Transformers' auto classes
    try:
        return factory.from_pretrained(
            locate(model),
            cache_dir=model.cache_dir,
            revision=model.model_revision,
            trust_remote_code=model.trust_remote_code,
            **options,
        )
    except (OSError, ValueError) as error:  # a ValueError: code of its own, or no known kind of model
        what = str(error).strip().splitlines()[0]
        raise Refused([Problem("model.model_name_or_path", model.model_name_or_path, what)]) from error
