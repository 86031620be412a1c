"""What a reward model thinks of the answers in a file: the work of `llmf score`."""

from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict, cast

import torch
from datasets import Dataset

from llmf_hydra.config import record
from llmf_hydra.config.groups.data import DataConfig
from llmf_hydra.config.groups.generation import GenerationConfig
from llmf_hydra.data.collate import TokenRow
from llmf_hydra.data.prepare import prepare
from llmf_hydra.data.tokenize.columns import IGNORED
from llmf_hydra.models.scorer import load_saved_scorer
from llmf_hydra.runs.folder import CONFIG


class Score(TypedDict):
    """The score of a row's last answer; rows count from 1."""

    row: int
    score: float


def scores(file: Path, folder: Path, batch_size: int) -> Iterator[Score]:
    """Score the dialogues of a file with the reward model in `folder`, in the order of the file. Raises Refused."""
    model, tokenizer = load_saved_scorer(folder)
    cast("torch.nn.Module", model).to("cuda" if torch.cuda.is_available() else "cpu")
    data, generation = _as_trained(file, folder)
    rows = cast("Dataset", prepare(data, "dialogue", tokenizer, generation, seed=0, packing=False).train)
    for start in range(0, len(rows), batch_size):
        batch = [rows[at] for at in range(start, min(start + batch_size, len(rows)))]
        tokens = tokenizer.pad(
            {"input_ids": [_with_answer(cast("TokenRow", row)) for row in batch]},
            return_tensors="pt",
            padding_side="right",
        )
        with torch.no_grad():
            given = model(**tokens.to(model.device), use_cache=False).logits.squeeze(-1).float().tolist()
        for row, score in zip(batch, given, strict=True):
            yield {"row": row["row"], "score": round(score, 6)}


def _as_trained(file: Path, folder: Path) -> tuple[DataConfig, GenerationConfig]:
    """How dialogues become text: as in the run that trained the model, where its config lies beside it."""
    config = folder.parent / CONFIG
    trained = record.load(config) if config.is_file() else None
    data = DataConfig(dataset=str(file.absolute()))
    if trained is None:
        return data, GenerationConfig()
    data.template, data.tool_format, data.cutoff_len = (
        trained.data.template,
        trained.data.tool_format,
        trained.data.cutoff_len,
    )
    return data, trained.generation


def _with_answer(row: TokenRow) -> list[int]:
    """The tokens up to the end of the last answer: what the reward was trained on."""
    end = max(at for at, label in enumerate(row["labels"]) if label != IGNORED)
    return row["input_ids"][: end + 1]
