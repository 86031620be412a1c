"""A saved reward model, as `stage=rm` leaves it: a folder with a whole model, or with an adapter and its head."""

import json
from pathlib import Path

import torch
from peft import PeftModel
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from llmf_hydra.errors import Problem, Refused

Scorer = PreTrainedModel | PeftModel
ADAPTER = "adapter_config.json"


def load_saved_scorer(folder: Path) -> tuple[Scorer, PreTrainedTokenizerBase]:
    """Model and tokenizer, ready to score. Raises Refused for a folder that holds no reward model."""
    is_adapter = (folder / ADAPTER).exists()
    if not is_adapter and not (folder / "config.json").exists():
        raise Refused(
            [
                Problem(
                    "--model", folder, "holds no saved model", "name the folder final/ of a run of stage=rm"
                )
            ]
        )
    if not _scores(folder, is_adapter):
        raise Refused(
            [Problem("--model", folder, "gives text and no scores", "name a model that stage=rm has trained")]
        )
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    base = (
        json.loads((folder / ADAPTER).read_text(encoding="utf8"))["base_model_name_or_path"]
        if is_adapter
        else folder
    )
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, dtype=torch.float32)
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    return (PeftModel.from_pretrained(model, folder) if is_adapter else model).eval(), tokenizer


def _scores(folder: Path, is_adapter: bool) -> bool:
    if is_adapter:
        return json.loads((folder / ADAPTER).read_text(encoding="utf8"))["task_type"] == "SEQ_CLS"
    architectures = json.loads((folder / "config.json").read_text(encoding="utf8")).get("architectures") or []
    return any(name.endswith("SequenceClassification") for name in architectures)
