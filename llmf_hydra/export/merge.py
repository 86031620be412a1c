"""The model to export: the base in full precision, with its adapters merged, and proof that it computes the same."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llmf_hydra.config.groups.model import ModelConfig
from llmf_hydra.config.schema import Config
from llmf_hydra.errors import LlmfError
from llmf_hydra.models.adapters import put_on
from llmf_hydra.models.load import load_config, load_model, load_scorer

ADAPTERS = "model.adapter_name_or_path"
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
TOLERANCE = 1e-4  # of the logits in float32, relative to the largest
TOKENS = 16  # that both are compared on


class MergeFailed(LlmfError, RuntimeError):
    """The merged model computes something else than the adapter on its base."""


def output_dtype(model: ModelConfig) -> torch.dtype:
    """The type of the exported weights: model.infer_dtype, else that of the base's own config."""
    if model.infer_dtype != "auto":
        return DTYPES[model.infer_dtype]
    config = load_config(model)
    known = config.dtype or config.get_text_config().dtype
    return known if isinstance(known, torch.dtype) else torch.float32


def placed(model: ModelConfig, device: str) -> ModelConfig:
    """How the model is loaded to be merged on export.export_device: auto spreads it over the GPUs that there are."""
    return replace(model, device_map="auto" if device == "auto" and torch.cuda.is_available() else None)


def merged_model(cfg: Config, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """The model with its adapters in its weights. These are added in float32, then rounded once. Raises Refused, and
    MergeFailed where the sum doesn't compute what the adapter on its base does."""
    adapters, target = cfg.model.adapters, output_dtype(cfg.model)
    settings = placed(cfg.network, cfg.export.export_device)
    dtype = torch.float32 if adapters else target
    cached = load_config(cfg.model).to_dict().get("use_cache", True)  # loading for a training switches it off
    if cfg.stage.scores:
        model = load_scorer(settings, dtype, tokenizer)
    else:
        model = load_model(settings, dtype)
    model.eval()
    for adapter in adapters:
        model = _merged(model, adapter, cfg.model)
    untie(model)
    model.config.use_cache = cached
    return cast("PreTrainedModel", model.to(target))  # pyright: ignore[reportArgumentType]


def untie(model: PreTrainedModel) -> None:
    """Where an adapter changed one of two weights that were the same, have both saved: loading would tie them again."""
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    if outputs is None or not model.config.get_text_config().tie_word_embeddings:
        return
    one, other = cast("torch.Tensor", inputs.weight), cast("torch.Tensor", outputs.weight)
    if one is other or torch.equal(one, other):
        return
    for config in (model.config, model.config.get_text_config()):
        config.tie_word_embeddings = False


def _merged(model: PreTrainedModel, adapter: str, of: ModelConfig) -> PreTrainedModel:
    adapted = cast("PeftModel", put_on(model, [adapter], ADAPTERS, of, merged=False).eval())
    ids = _some_tokens(model)
    before = _output(adapted, ids)
    whole: Any = adapted.merge_and_unload()
    after = _output(whole, ids)
    difference = float((after - before).abs().max() / before.abs().max().clamp(min=1))
    if not difference <= TOLERANCE:
        raise MergeFailed(
            f"the adapter {adapter} cannot be merged: its weights in the model change the output by {difference:.1e} "
            "of its size"
        )
    return whole


@torch.no_grad()
def _output(model: Any, ids: Sequence[int]) -> torch.Tensor:
    tokens = torch.tensor([list(ids)], device=next(model.parameters()).device)
    return model(input_ids=tokens, use_cache=False).logits.float()


def _some_tokens(model: PreTrainedModel) -> list[int]:
    rows = model.config.get_text_config().vocab_size
    return [number * rows // (TOKENS + 1) for number in range(1, TOKENS + 1)]
