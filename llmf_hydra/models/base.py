"""The model under a method or under an adapter: saved adapters merged in, weights quantized."""

from typing import cast

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llmf_hydra.config.schema import Config
from llmf_hydra.models.adapters import put_on
from llmf_hydra.models.load import load_model, load_scorer
from llmf_hydra.models.quantization.weights import FULL_PRECISION, quantize

ADAPTERS = "model.adapter_name_or_path"


def load_base(cfg: Config, dtype: torch.dtype, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """The model with its weights in `dtype`, as the last adapter of the config stands on it. Raises Refused.

    The adapters before that one are merged into full-precision weights, and only these are quantized.
    """
    merged = cfg.merged_adapters
    while_loading = FULL_PRECISION if merged else cfg.quantization
    if cfg.stage.scores:
        model = load_scorer(cfg.network, dtype, tokenizer, while_loading)
    else:
        model = load_model(cfg.network, dtype, while_loading)
    if not merged:
        return model
    # With all adapters merged it is a bare model again.
    bare = cast("PreTrainedModel", put_on(model, merged, ADAPTERS, cfg.model))
    return quantize(bare, cfg.quantization, dtype)
