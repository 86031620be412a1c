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


def add_tokens(tokenizer: PreTrainedTokenizerBase, model: ModelConfig) -> None:
    """Add those of `new_special_tokens` that the tokenizer doesn't have as special ones."""
    known = set(tokenizer.all_special_tokens)
    wanted = [token for token in names(model.new_special_tokens) if token not in known]
    if wanted:
        tokenizer.add_special_tokens({"extra_special_tokens": wanted}, replace_extra_special_tokens=False)


def check(
    model: ModelConfig,
    plain: PreTrainedTokenizerBase,
    whole: PreTrainedTokenizerBase,
    config: PretrainedConfig,
) -> None:
    """Raise Refused for tokens that are special already or have no row of the embeddings, and where nothing would be
    resized. `plain` is the tokenizer without the new tokens, `whole` the one with them, `config` the model's own."""
    known = set(plain.all_special_tokens)
    if twice := [token for token in names(model.new_special_tokens) if token in known]:
        what = f"{', '.join(twice)} is a special token of the model already"
        raise Refused([Problem(TOKENS, model.new_special_tokens, what, "leave it out")])
    rows, count = config.get_text_config().vocab_size, len(whole)
    if model.new_special_tokens and not model.resize_vocab and count > rows:
        what = f"makes {count} tokens, and the embeddings have {rows} rows"
        raise Refused([Problem(TOKENS, model.new_special_tokens, what, f"set {RESIZE}=true")])
    if model.resize_vocab and count <= rows:
        what = f"has no effect: the {count} tokens have their rows among the {rows} of the embeddings"
        raise Refused([Problem(RESIZE, True, what, "leave it out")])


@torch.no_grad()
def resize(model: PreTrainedModel, rows: int) -> PreTrainedModel:
    """The model with so many rows of its embeddings; the new ones are the mean of the old."""
    old = cast("torch.Tensor", model.get_input_embeddings().weight).shape[0]
    if rows <= old:
        return model
    model.resize_token_embeddings(rows, mean_resizing=False)
    for layer in _embeddings(model).values():
        weight = cast("torch.Tensor", layer.weight)
        weight[old:] = weight[:old].float().mean(dim=0).to(weight.dtype)
    return model


def with_new_rows(method: MethodConfig, model: PreTrainedModel, settings: ModelConfig) -> MethodConfig:
    """The method that trains and saves the embeddings too, where the model has new tokens."""
    if not settings.new_special_tokens or method.name == "full":
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
