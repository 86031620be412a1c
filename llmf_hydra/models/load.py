"""Tokenizer and weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from llmf_hydra.config.groups.model import ModelConfig
from llmf_hydra.config.groups.quantization import QuantizationConfig
from llmf_hydra.errors import Problem, Refused
from llmf_hydra.models.architecture.apply import attention, configure, finish
from llmf_hydra.models.architecture.kernels import load_unsloth
from llmf_hydra.models.architecture.placement import placement
from llmf_hydra.models.quantization import weights as quantized
from llmf_hydra.models.quantization.weights import FULL_PRECISION
from llmf_hydra.models.ref import is_on_hub
from llmf_hydra.models.sources import hubs
from llmf_hydra.models.vocabulary import tokens as vocabulary
from llmf_hydra.models.vocabulary.slow import slow_tokenizer

MODEL = "model.model_name_or_path"


def load_tokenizer(model: ModelConfig) -> PreTrainedTokenizerBase:
    """The model's tokenizer, with the new special tokens and a padding token. Raises Refused."""
    tokenizer = _from_hub(AutoTokenizer, model)
    if not model.use_fast_tokenizer and tokenizer.is_fast:
        tokenizer = slow_tokenizer(hubs.folder_of(model, weights=False))
    vocabulary.add_tokens(tokenizer, model)
    tokenizer.split_special_tokens = model.split_special_tokens
    if model.model_max_length is not None:
        tokenizer.model_max_length = model.model_max_length
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_config(model: ModelConfig, **fields: Any) -> PretrainedConfig:
    """The model's config, without its weights; `fields` stand in for its own. Raises Refused."""
    return configure(_from_hub(AutoConfig, model, **fields), model)


def load_sized_config(model: ModelConfig) -> PretrainedConfig:
    """The model's config with the vocabulary that the loaded model will have. Raises Refused."""
    config = load_config(model)
    if model.resize_vocab:
        text = config.get_text_config()
        text.vocab_size = max(text.vocab_size, len(load_tokenizer(model)))
    return config


def load_model(
    model: ModelConfig, dtype: torch.dtype, quantization: QuantizationConfig = FULL_PRECISION
) -> PreTrainedModel:
    """The model with its weights in `dtype`, the linear layers quantized where that is asked for; random weights with
    `train_from_scratch`."""
    loaded = _loaded(text_factory(load_config(model)), model, dtype, quantization)
    loaded.config.use_cache = False  # of no use in training, and it breaks packing and checkpointing
    return loaded


def text_factory(config: PretrainedConfig) -> Any:
    """Transformers' factory of models that give text: of those that see where the config is of one."""
    kind = type(config)
    sees = kind in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING and kind not in MODEL_FOR_CAUSAL_LM_MAPPING
    return AutoModelForImageTextToText if sees else AutoModelForCausalLM


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


@contextmanager
def told_of(key: str) -> Iterator[None]:
    """Refusals of the run's model, of what is loaded beside it: they name the setting that names that."""
    try:
        yield
    except Refused as refused:
        raise Refused([_told_of(key, problem) for problem in refused.problems]) from refused.__cause__


def _told_of(key: str, problem: Problem | str) -> Problem | str:
    if isinstance(problem, Problem):
        return replace(problem, key=key) if problem.key == MODEL else problem
    return problem.replace(MODEL, key)


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


def _loaded(
    factory,
    model: ModelConfig,
    dtype: torch.dtype,
    quantization: QuantizationConfig,
    num_labels: int | None = None,
):
    options: dict[str, object] = {"dtype": dtype, "attn_implementation": attention(model)}
    config = load_config(model, **({} if num_labels is None else {"num_labels": num_labels}))
    folder = hubs.folder_of(model, weights=not model.train_from_scratch)
    if model.train_from_scratch:
        trusted = model.trust_remote_code
        network = _sized(factory.from_config(config, trust_remote_code=trusted, **options), model)
    elif model.use_unsloth:
        network = load_unsloth(model, folder, dtype)
    else:
        options |= quantized.loading_options(quantization, dtype) | placement(model)
        network = _sized(_from_hub(factory, model, weights=True, config=config, **options), model)
        network = quantized.finish(network, quantization, dtype)
    return finish(network, model, folder)


def _sized(loaded: PreTrainedModel, model: ModelConfig) -> PreTrainedModel:
    return vocabulary.resize(loaded, len(load_tokenizer(model))) if model.resize_vocab else loaded


def _from_hub(factory, model: ModelConfig, *, weights: bool = False, **options):  # Transformers' auto classes
    folder = hubs.folder_of(model, weights=weights)
    try:
        loaded = factory.from_pretrained(folder, trust_remote_code=model.trust_remote_code, **options)
    except (
        OSError,
        ValueError,
        ImportError,
    ) as error:  # its own code, what that imports, or no known kind of model
        what, remedy = str(error).strip().splitlines()[0], ""
        if "trust_remote_code" in str(error):
            what = "comes with code of its own, which is not run"
            remedy = "set model.trust_remote_code=true if you trust it"
        problem = Problem(MODEL, model.model_name_or_path, what, remedy)
        raise Refused([problem]) from error
    if is_on_hub(str(model.model_name_or_path)) and hubs.hub_of(model) == hubs.HUGGING_FACE:
        _name(loaded, str(model.model_name_or_path))
    return loaded


def _name(loaded: object, name: str) -> None:
    """Call it by its name on the hub, which an adapter's file says of its base, and not by a folder of this cache."""
    for named in (loaded, loaded.config if isinstance(loaded, PreTrainedModel) else None):
        if isinstance(named, PreTrainedModel | PretrainedConfig | PreTrainedTokenizerBase):
            named.name_or_path = name
