"""What the tests of stage=grpo share: sums to answer, a reward with spread on the tiny model, and its formulas."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from torch import nn

SHORT = ["stage=grpo", "model.compute_dtype=float32", "data.dataset=./sums.jsonl", "training.max_steps=2",
         "training.logging_steps=1", "training.per_device_train_batch_size=8", "rlhf.num_generations=4",
         "training.save_strategy=no", "generation.max_new_tokens=6", "training.learning_rate=0.01",
         "training.plot_loss=false", "rlhf.rewards=[python:letters:share]"]  # fmt: skip
LETTERS = '''"""Rewards of texts."""


def share(prompts, completions):
    """The share of an answer's characters that are vowels."""
    return [sum(c in "aeiou" for c in text) / max(1, len(text)) for text in completions]


def spaces(prompts, completions):
    """How many words an answer has, about."""
    return [text.count(" ") for text in completions]
'''


def sums(folder: Path, count: int = 24) -> None:
    """Write sums with their results, and the rewards, into a folder."""
    rows = [
        {"instruction": f"What is {n} + {n % 7}?", "output": str(n + n % 7), "level": n} for n in range(count)
    ]
    (folder / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf8")
    (folder / "letters.py").write_text(LETTERS, encoding="utf8")


def table(out: Path) -> list[dict[str, Any]]:
    """The answers of a run with their rewards, in the order in which they came."""
    files = sorted((out / "completions").glob("*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def grouped(rows: list[dict[str, Any]], name: str, size: int = 4) -> torch.Tensor:
    """A column of the table, a row per group."""
    return torch.tensor([row[name] for row in rows], dtype=torch.float64).view(-1, size)


def log_probs(model: nn.Module, prompt: list[int], answer: list[int], temperature: float) -> torch.Tensor:
    """The log-probability of each token of one answer, alone and without padding, (tokens,)."""
    ids = torch.tensor([prompt + answer])
    logits = (
        model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, len(prompt) - 1 : -1].double()
    )
    chosen = torch.tensor(answer).unsqueeze(1)
    return torch.log_softmax(logits / temperature, dim=-1).gather(1, chosen).squeeze(1)
