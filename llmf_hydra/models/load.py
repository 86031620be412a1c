"""Tokenizer and weights."""

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
from llmf_hydra.config.groups.quantization import QuantizationConfig
from llmf_hydra.errors import Problem, Refused
from llmf_hydra.models import quantized
from llmf_hydra.models.quantized import FULL_PRECISION
from llmf_hydra.models.ref import locate

ATTENTION = {"auto": None, "disabled": "eager", "sdpa": "sdpa"}  # spec's flash_attn -> Transformers' name


def load_tokenizer(model: ModelConfig) -> PreTrainedTokenizerBase:
    """The model's tokenizer, with a padding token."""
    tokenizer = _from_hub(AutoTokenizer, model)
    tokenizer.split_special_tokens = model.split_special_tokens
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_config(model: ModelConfig, **fields: object) -> PretrainedConfig:
    """The model's config, without its weights; `fields` stand in for its own. Raises Refused."""
    return _from_hub(AutoConfig, model, **fields)


def load_model(
    model: ModelConfig, dtype: torch.dtype, quantization: QuantizationConfig = FULL_PRECISION
) -> PreTrainedModel:
    """The model with its weights in `dtype`, the linear layers quantized where that is asked for; random weights with
    `train_from_scratch`."""
    loaded = _loaded(AutoModelForCausalLM, model, dtype, quantization)
    loaded.config.use_cache = False  # of no use in training, and it breaks packing and checkpointing
    return loaded


def load_scorer(
    model: ModelConfig,
    dtype: torch.dtype,
    tokenizer: PreTrainedTokenizerBase,
    quantization: QuantizationConfig = FULL_PRECISION,
) -> PreTrainedModel:
    """The model with a head that gives one number in place of text; the head starts random unless it was saved.

    The number is read at the last token that isn't padding, so the config must know the padding token.
    """
    loaded = _loaded(AutoModelForSequenceClassification, model, dtype, quantization, num_labels=1)
    config = loaded.config.get_text_config()
    config.use_cache, config.pad_token_id = False, tokenizer.pad_token_id
    return loaded


def _loaded(
    factory,
    model: ModelConfig,
    dtype: torch.dtype,
    quantization: QuantizationConfig,
    num_labels: int | None = None,
):
    options: dict[str, object] = {"dtype": dtype, "attn_implementation": ATTENTION[model.flash_attn]}
    fields = {} if num_labels is None else {"num_labels": num_labels}
    if not model.train_from_scratch:
        options |= quantized.loading_options(quantization, dtype)
        return quantized.finish(_from_hub(factory, model, **options, **fields), quantization, dtype)
    config = load_config(model, **fields)
    return factory.from_config(config, trust_remote_code=model.trust_remote_code, **options)


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
