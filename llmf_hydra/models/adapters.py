"""Saved adapters as a part of a model that isn't trained, or on which another one is trained."""

from collections.abc import Sequence
from pathlib import Path

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from llmf_hydra.config.groups.model import ModelConfig
from llmf_hydra.errors import Problem, Refused
from llmf_hydra.models.sources.hubs import adapter_folder


def put_on(
    base: PreTrainedModel, adapters: Sequence[str], key: str, of: ModelConfig, *, merged: bool = True
) -> PreTrainedModel | PeftModel:
    """The model with saved adapters, one after another; `of` says on which hub they lie, where they are no folders.

    Raises Refused, under the key that names them.
    Merged into quantized weights an adapter would be rounded; there it stays beside them.
    """
    model: PreTrainedModel | PeftModel = base
    for adapter in adapters:
        folder = adapter_folder(adapter, of, key)
        try:
            adapted = PeftModel.from_pretrained(model, folder)
        except (OSError, ValueError, RuntimeError) as error:  # a RuntimeError: another shape
            raise Refused([Problem(key, adapter, str(error).strip().splitlines()[0])]) from error
        model = adapted.merge_and_unload() if merged else adapted  # pyright: ignore
    return model


def save(
    model: PeftModel, folder: str | Path, adapter: str, weights: dict[str, torch.Tensor] | None = None
) -> None:
    """Save one adapter as PEFT loads it; `weights` are its own, where they were gathered from several processes.

    PEFT's empty model card is left out: rendering it takes longer than the rest.
    """
    model.create_or_update_model_card = lambda output_dir: None
    model.save_pretrained(str(folder), selected_adapters=[adapter], state_dict=weights)
