"""A model that gives a score: its head, where the score is read, and how a saved one is loaded."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from llmf_hydra.checks.residual import residual_of
from llmf_hydra.checks.scorer import HEAD, OTHER_HEADS, adapter_scores, model_scores
from llmf_hydra.errors import Problem, Refused
from llmf_hydra.models.adapter_files import CONFIG as ADAPTER
from llmf_hydra.models.adapter_files import read
from llmf_hydra.models.network import Network


def last_tokens(ids: torch.Tensor, pad_id: int) -> torch.Tensor:
    """Where each line's score is read, (rows,): its last token that isn't the padding token, of ids (rows, length).

    That is how Transformers' sequence classifiers read it: where the padding token also ends the answers, the score
    stands before the end.
    """
    place = torch.arange(ids.shape[1], device=ids.device)
    return (place * (ids != pad_id)).argmax(dim=-1)


def last_token(ids: Sequence[int], pad_id: int) -> int:
    """The same for one line; 0 where it holds nothing but padding."""
    return next((at for at in reversed(range(len(ids))) if ids[at] != pad_id), 0)


def scores_of_tokens(model: nn.Module, inputs: Mapping[str, object]) -> torch.Tensor:
    """The head's number at every token, (rows, length) in float32; the model itself reads one per line."""
    seen: list[torch.Tensor] = []
    head = next(module for name, module in model.named_modules() if name.rpartition(".")[2] == HEAD)
    hook = head.register_forward_hook(lambda _, __, scores: seen.append(scores))
    try:
        model(**inputs, use_cache=False)
    finally:
        hook.remove()
    return seen[0].squeeze(-1).float()


def take_head(weights: dict[str, torch.Tensor]) -> torch.Tensor:
    """Take the head's weight, (1, hidden), out of an adapter's weights. Raises ValueError where there is none."""
    names = [
        name for name in weights if name.rpartition(".weight")[0].rpartition(".")[2] in (HEAD, *OTHER_HEADS)
    ]
    if len(names) != 1:
        raise ValueError("holds no head that scores")
    head = weights.pop(names[0])
    if head.shape[0] != 1:
        raise ValueError(f"its head gives {head.shape[0]} numbers where a reward is one")
    return head


def load_saved_scorer(folder: Path, key: str = "--model") -> tuple[Network, PreTrainedTokenizerBase]:
    """Model and tokenizer of a folder that `stage=rm` saved: a whole model, or an adapter with its head.

    Raises Refused, under the key that names it, for a folder that holds no reward model.
    """
    adapter, whole = read(folder / ADAPTER), read(folder / "config.json")
    if adapter is None and whole is None:
        remedy = "name the folder final/ of a run of stage=rm"
        raise Refused([Problem(key, folder, "holds no saved model", remedy)])
    scores = adapter_scores(adapter) if adapter is not None else model_scores(whole or {})
    if not scores:
        remedy = "name a model that stage=rm has trained"
        raise Refused([Problem(key, folder, "gives text and no scores", remedy)])
    try:
        return _loaded(folder, adapter)
    except (OSError, ValueError, RuntimeError) as error:  # a RuntimeError: another shape
        raise Refused([Problem(key, folder, str(error).strip().splitlines()[0])]) from error


def _loaded(folder: Path, adapter: Mapping[str, Any] | None) -> tuple[Network, PreTrainedTokenizerBase]:
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    base = folder if adapter is None else adapter["base_model_name_or_path"]
    model: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=1, dtype=torch.float32, **_scaled(folder, adapter)
    )
    if adapter is not None and len(tokenizer) > model.config.get_text_config().vocab_size:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)  # its rows come with the adapter
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    if adapter is None:
        return model.eval(), tokenizer
    residual = residual_of(str(folder))
    merged: Any = model if residual is None else PeftModel.from_pretrained(model, residual).merge_and_unload()
    return PeftModel.from_pretrained(merged, folder).eval(), tokenizer


def _scaled(folder: Path, adapter: Mapping[str, Any] | None) -> dict[str, Any]:
    """The config beside an adapter whose base was loaded with another one than its folder's."""
    if adapter is None or not (folder / "config.json").is_file():
        return {}
    return {"config": AutoConfig.from_pretrained(folder, num_labels=1)}
