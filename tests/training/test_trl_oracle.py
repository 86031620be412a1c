"""TRL's own trainers are the oracle: the same rows in the same order on the same model give the same losses."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from support.stage_runs import SGD, Build, steps
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from trl import (
    DPOConfig,
    DPOTrainer,
    KTOConfig,
    KTOTrainer,
    RewardConfig,
    RewardTrainer,
    SFTConfig,
    SFTTrainer,
)

from llmf_hydra import paths
from llmf_hydra.models.builtin import tiny

ROWS, STEPS = 12, 4
OURS = [*SGD, "method=full", "model.compute_dtype=float32", f"training.max_steps={STEPS}", "training.learning_rate=0.1",
        "training.per_device_train_batch_size=3", "training.gradient_accumulation_steps=1"]  # fmt: skip


@pytest.fixture
def theirs(tmp_path: Path) -> dict[str, Any]:
    """Arguments of TRL's configs that say what `OURS` says."""
    return {
        "output_dir": str(tmp_path / "trl"), "max_steps": STEPS, "learning_rate": 0.1, "optim": "sgd",
        "lr_scheduler_type": "constant", "max_grad_norm": 0.0, "logging_steps": 1, "save_strategy": "no",
        "per_device_train_batch_size": 3, "train_sampling_strategy": "sequential", "bf16": False,
        "gradient_checkpointing": False, "use_cpu": True, "report_to": [], "max_length": None,
    }  # fmt: skip


def losses(trainer: Any) -> list[float]:
    trainer.train()
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]


def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(tiny.ready())


def demo(name: str) -> Iterator[dict[str, Any]]:
    with (paths.data_dir() / f"demo_{name}.jsonl").open(encoding="utf8") as lines:
        yield from (json.loads(line) for _, line in zip(range(ROWS), lines, strict=False))


def numbered(rows: Dataset) -> Dataset:
    """TRL's prepared rows with the columns that say where a row comes from."""
    count = len(rows)
    return rows.add_column("source", [0] * count).add_column("row", list(range(count)))  # pyright: ignore


def test_supervised_fine_tuning(build: Build, theirs: dict[str, Any]) -> None:
    trainer = build("stage=sft", *OURS)
    rows = trainer.train_dataset.select_columns(["input_ids", "labels"])
    oracle = SFTTrainer(
        AutoModelForCausalLM.from_pretrained(tiny.ready()),
        args=SFTConfig(**theirs, dataset_kwargs={"skip_prepare_dataset": True}),
        train_dataset=rows,
        processing_class=tokenizer(),
    )
    expected = losses(oracle)
    assert steps(trainer)[0] == pytest.approx(expected, abs=1e-5) and len(set(expected)) == STEPS


@pytest.mark.parametrize("loss", ["sigmoid", "hinge", "ipo"])
def test_preferences(loss: str, build: Build, theirs: dict[str, Any]) -> None:
    text = [{"prompt": f"{row['instruction']}\n", "chosen": row["chosen"], "rejected": row["rejected"]}
            for row in demo("preference")]  # fmt: skip
    rate = 1e-4 if loss == "ipo" else 0.02  # so that no loss vanishes
    oracle = DPOTrainer(
        AutoModelForCausalLM.from_pretrained(tiny.ready()),
        args=DPOConfig(**{**theirs, "learning_rate": rate}, loss_type=[loss], beta=0.1),
        train_dataset=Dataset.from_list(text),
        processing_class=tokenizer(),
    )
    trainer = build(
        "stage=dpo", *OURS, f"training.learning_rate={rate}", f"rlhf.pref_loss={loss}", "rlhf.pref_beta=0.1"
    )
    trainer.train_dataset = numbered(oracle.train_dataset)  # pyright: ignore
    expected = losses(oracle)
    assert steps(trainer)[0] == pytest.approx(expected, abs=1e-5, rel=1e-5) and len(set(expected)) == STEPS


def test_feedback(build: Build, theirs: dict[str, Any]) -> None:
    """TRL estimates the divergence within each batch, ours over a whole step: with one batch per step they are one."""
    text = [{"prompt": f"{row['instruction']}\n", "completion": row["rejected" if number % 2 else "chosen"],
             "label": number % 2 == 0} for number, row in enumerate(demo("preference"))]  # fmt: skip
    oracle = KTOTrainer(
        AutoModelForCausalLM.from_pretrained(tiny.ready()),
        args=KTOConfig(**{**theirs, "learning_rate": 0.5}, beta=0.1),
        train_dataset=Dataset.from_list(text),
        processing_class=tokenizer(),
    )
    trainer = build("stage=kto", *OURS, "training.learning_rate=0.5", "rlhf.pref_beta=0.1")
    trainer.train_dataset = numbered(oracle.train_dataset)  # pyright: ignore
    expected = losses(oracle)
    assert steps(trainer)[0] == pytest.approx(expected, abs=1e-5) and len(set(expected)) == STEPS
    assert any(line.get("kl") for line in trainer.state.log_history), "the estimate isn't always 0"


def test_reward_model(build: Build, theirs: dict[str, Any]) -> None:
    trainer = build("stage=rm", *OURS, "training.learning_rate=0.02")
    rows = [{f"{side}_ids": row["prompt_ids"] + row[f"{side}_ids"] for side in ("chosen", "rejected")}
            for row in trainer.train_dataset]  # fmt: skip
    model = AutoModelForSequenceClassification.from_pretrained(tiny.ready(), num_labels=1)
    model.load_state_dict(trainer.model.state_dict())  # the head starts random
    oracle = RewardTrainer(
        model,
        args=RewardConfig(**{**theirs, "learning_rate": 0.02}),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer(),
    )
    expected = losses(oracle)
    assert steps(trainer)[0] == pytest.approx(expected, abs=1e-5) and len(set(expected)) == STEPS
