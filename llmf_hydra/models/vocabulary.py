"""Special tokens that are added to a model's own, and the rows of its embeddings that they take.

Rows are only ever added, and a new one starts as the mean of the old ones, so that no new token is likelier than
another (Hewitt 2021, "Initializing New Word Embeddings for Pretrained Language Models").
"""

from dataclasses import replace
from typing import cast

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from llmf_hydra.config.choices import METHODS
from llmf_hydra.config.groups.method import MethodConfig
from llmf_hydra.config.groups.model import ModelConfig
from llmf_hydra.config.names import names
from llmf_hydra.errors import Problem, Refused

TOKENS, RESIZE = "model.new_special_tokens", "model.resize_vocab"


def add_tokens(tokenizer: PreTrainedTokenizerBase, model: ModelConfig) -> PreTrainedTokenizerBase:
    """The tokenizer with `new_special_tokens`. Raises Refused for those that it has as special ones already."""
    wanted = names(model.new_special_tokens)
    known = set(tokenizer.all_special_tokens)
    if twice := [token for token in wanted if token in known]:
        what = f"{', '.join(twice)} is a special token of the model already"
        raise Refused([Problem(TOKENS, model.new_special_tokens, what, "leave it out")])
    if wanted:
        tokenizer.add_special_tokens({"extra_special_tokens": wanted}, replace_extra_special_tokens=False)
    return tokenizer


def rows_needed(model: ModelConfig, tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> int:
    """The rows of the embeddings: those that the model has, or with `resize_vocab` one for each token.

    Raises Refused for tokens without a row, and where nothing would be resized.
    """
    rows = config.get_text_config().vocab_size
    if model.new_special_tokens and not model.resize_vocab and len(tokenizer) > rows:
        what = f"makes {len(tokenizer)} tokens, and the embeddings have {rows} rows"
        raise Refused([Problem(TOKENS, model.new_special_tokens, what, f"set {RESIZE}=true")])
    if model.resize_vocab and len(tokenizer) <= rows:
        what = f"has no effect: the {len(tokenizer)} tokens have their rows among the {rows} of the embeddings"
        raise Refused([Problem(RESIZE, True, what, "leave it out")])
    return len(tokenizer) if model.resize_vocab else rows


@torch.no_grad()
def resize(model: PreTrainedModel, rows: int) -> PreTrainedModel:
    """The model with so many rows of its embeddings; the new ones are the mean of the old."""
    old = model.get_input_embeddings().weight.shape[0]
    if rows <= old:
        return model
    model.resize_token_embeddings(rows, mean_resizing=False)
    for layer in _embeddings(model).values():
        weight = cast("torch.Tensor", layer.weight)
        weight[old:] = weight[:old].float().mean(dim=0).to(weight.dtype)
    return model


def with_new_rows(method: MethodConfig, model: PreTrainedModel, settings: ModelConfig) -> MethodConfig:
    """The method that trains and saves the embeddings too, where the model has new tokens."""
    if not settings.new_special_tokens or METHODS[method.name].trains_all:
        return method
    wanted = [path.rpartition(".")[2] for path in _embeddings(model)]
    key = "additional_target" if METHODS[method.name].adapters else "freeze_extra_modules"
    given = names(getattr(method, key))
    return replace(method, **{key: ",".join([*given, *(name for name in wanted if name not in given)])})


def _embeddings(model: PreTrainedModel) -> dict[str, nn.Module]:
    """The layers with a row for each token, by their path: one where the head is tied to the embeddings."""
    layers = [model.get_input_embeddings(), model.get_output_embeddings()]
    seen: set[int] = set()
    found: dict[str, nn.Module] = {}
    for path, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if any(module is layer for layer in layers) and id(weight) not in seen:
            found[path] = module
            seen.add(id(weight))
    return found
