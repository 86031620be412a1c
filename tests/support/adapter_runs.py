"""Saved adapters of the tiny model, and what plain PEFT makes of them."""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from llmf_hydra.models.builtin import tiny


def save(folder: Path, base: Path, seed: int, rank: int = 4) -> Path:
    """Save an adapter that changes its model."""
    torch.manual_seed(seed)
    config = LoraConfig(task_type="CAUSAL_LM", r=rank, target_modules="all-linear", init_lora_weights=False)
    model: Any = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    model.save_pretrained(folder)
    return folder


def merged(*adapters: Path) -> Any:
    """The tiny model with adapters merged, by PEFT alone."""
    model: Any = AutoModelForCausalLM.from_pretrained(tiny.ready())
    for adapter in adapters:
        model = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    return model.eval()


def logits(model: Any) -> torch.Tensor:
    """(1, tokens, vocabulary) of some tokens."""
    ids = torch.arange(20, 40)[None]
    with torch.no_grad():
        return model.eval()(input_ids=ids).logits
