"""Saved adapters as a part of a model that isn't trained, or on which another one is trained."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from torch import nn
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
        model = merge(adapted) if merged else adapted
    return model


def save(
    model: PeftModel, folder: str | Path, adapter: str, weights: dict[str, torch.Tensor] | None = None
) -> None:
    """Save one adapter as PEFT loads it; `weights` are its own, where they were gathered from several processes.

    PEFT's empty model card is left out: rendering it takes longer than the rest. Embeddings that the adapter trains are
    in it once: PEFT would save those of a resized vocabulary again, as they were and as they are.
    """
    model.create_or_update_model_card = lambda output_dir: None
    base = cast("PreTrainedModel", model.get_base_model())
    layers = (base.get_input_embeddings(), base.get_output_embeddings())
    trained = any(isinstance(layer, ModulesToSaveWrapper | BaseTunerLayer) for layer in layers)
    model.save_pretrained(
        str(folder),
        selected_adapters=[adapter],
        state_dict=weights,
        save_embedding_layers=False if trained else "auto",
    )


def merge(adapted: PeftModel) -> PreTrainedModel:
    """The model with its adapter in its weights.

    A head that is tied to the embeddings gets weights of its own where the adapter changes one of the two: PEFT would
    change both, and a saved model would be tied again when it is loaded.
    """
    base = cast("PreTrainedModel", adapted.get_base_model())
    wrapped = [base.get_input_embeddings(), base.get_output_embeddings()]
    plain = [_plain(layer) for layer in wrapped]
    touched = any(layer is not inner for layer, inner in zip(wrapped, plain, strict=True))
    if touched and plain[1] is not None and plain[0].weight is plain[1].weight:
        plain[1].weight = nn.Parameter(plain[1].weight.detach().clone(), requires_grad=False)
    model: PreTrainedModel = adapted.merge_and_unload()  # pyright: ignore
    if touched:
        _note_ties(model)
    return model


def _plain(layer: Any) -> Any:
    """A layer without what PEFT puts around it."""
    if isinstance(layer, ModulesToSaveWrapper):
        return layer.original_module
    return layer.get_base_layer() if isinstance(layer, BaseTunerLayer) else layer


def _note_ties(model: PreTrainedModel) -> None:
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    if outputs is not None and not torch.equal(cast("Any", inputs.weight), cast("Any", outputs.weight)):
        for config in (model.config, model.config.get_text_config()):
            config.tie_word_embeddings = False
