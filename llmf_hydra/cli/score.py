"""`llmf score FILE --model FOLDER`: what a reward model thinks of the answers in a file."""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from llmf_hydra.config import record
from llmf_hydra.config.groups.data import DataConfig
from llmf_hydra.config.groups.generation import GenerationConfig
from llmf_hydra.errors import DONE, Problem, Refused
from llmf_hydra.runs.folder import CONFIG


def main(argv: Sequence[str]) -> int:
    """Score the dialogues of a file; a JSON line each: row, score. Raises Refused."""
    asked = _parser().parse_args(argv)
    if not asked.file.is_file():
        raise Refused([Problem("FILE", asked.file, "there is no such file")])
    if asked.batch < 1:
        raise Refused([Problem("--batch", asked.batch, "must be >= 1")])
    if asked.out is not None and (asked.out.exists() or not asked.out.absolute().parent.is_dir()):
        what = "is there already" if asked.out.exists() else "lies in a folder that does not exist"
        raise Refused([Problem("--out", asked.out, what, "name a new file")])
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    lines = (json.dumps(line) + "\n" for line in _scored(asked))
    if asked.out is None:
        sys.stdout.writelines(lines)
    else:
        asked.out.write_text("".join(lines), encoding="utf8")
    return DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "llmf score", description="Score the answers in a file with a reward model."
    )
    parser.add_argument(
        "file", type=Path, help="dialogues with answers, in any format that trains; the last answer is scored"
    )
    parser.add_argument("--model", type=Path, required=True, help="the folder final/ of a run of stage=rm")
    parser.add_argument("--out", type=Path, help="file to write; left out: standard output")
    parser.add_argument("--batch", type=int, default=8, help="answers at a time")
    return parser


def _scored(asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    import torch

    from llmf_hydra.data.prepare import prepare
    from llmf_hydra.models.scorer import load_saved_scorer

    model, tokenizer = load_saved_scorer(asked.model)
    device: Any = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device)
    data, generation = _as_trained(asked)
    rows: Any = prepare(data, "dialogue", tokenizer, generation, seed=0, packing=False).train
    for start in range(0, len(rows), asked.batch):
        batch = [rows[at] for at in range(start, min(start + asked.batch, len(rows)))]
        tokens = tokenizer.pad(
            {"input_ids": [_with_answer(row) for row in batch]}, return_tensors="pt", padding_side="right"
        )
        with torch.no_grad():
            scores = model(**tokens.to(model.device), use_cache=False).logits.squeeze(-1).float().tolist()
        for row, score in zip(batch, scores, strict=True):
            yield {"row": row["row"], "score": round(score, 6)}


def _as_trained(asked: argparse.Namespace) -> tuple[DataConfig, GenerationConfig]:
    """How dialogues become text: as in the run that trained the model, where its config lies beside it."""
    config = asked.model.parent / CONFIG
    trained = record.load(config) if config.is_file() else None
    data = DataConfig(dataset=str(asked.file.absolute()))
    if trained is None:
        return data, GenerationConfig()
    data.template, data.tool_format, data.cutoff_len = (
        trained.data.template,
        trained.data.tool_format,
        trained.data.cutoff_len,
    )
    return data, trained.generation


def _with_answer(row: dict[str, Any]) -> list[int]:
    """The tokens up to the end of the last answer: what the reward was trained on."""
    end = max(at for at, label in enumerate(row["labels"]) if label != -100)
    return row["input_ids"][: end + 1]
