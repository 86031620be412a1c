"""`stage=pt` and `stage=sft` on the tiny model: the mean over tokens, packing, and what is logged."""

from typing import Any

import pytest
import torch
from support.stage_runs import SGD, Build, steps
from torch.nn import functional as F

SFT = ["stage=sft", *SGD]


def by_hand(model: Any, rows: list[dict[str, Any]]) -> tuple[float, float]:
    """The mean of -log p, and the share of tokens that are the likeliest: one row at a time, all logits."""
    losses, right = [], []
    for row in rows:
        with torch.no_grad():
            logits = model(torch.tensor([row["input_ids"]]), use_cache=False).logits[0, :-1].float()
        labels = torch.tensor(row["labels"])[1:]
        trained = labels != -100
        losses.append(F.cross_entropy(logits[trained], labels[trained], reduction="none"))
        right.append(logits[trained].argmax(dim=-1) == labels[trained])
    return torch.cat(losses).mean().item(), torch.cat(right).float().mean().item()


@pytest.mark.parametrize("stage", ["pt", "sft"])
def test_a_step_does_not_depend_on_how_it_is_cut_into_batches(stage: str, build: Build) -> None:
    done = [
        steps(build(f"stage={stage}", *SGD, f"training.per_device_train_batch_size={size}",
                    f"training.gradient_accumulation_steps={times}"))
        for size, times in ((4, 1), (2, 2), (1, 4))
    ]  # fmt: skip
    for losses, weights in done[1:]:
        assert losses == pytest.approx(done[0][0], rel=1e-5)
        for name, weight in weights.items():
            torch.testing.assert_close(weight, done[0][1][name], atol=1e-5, rtol=1e-4, msg=name)


def test_loss_and_accuracy_are_those_of_single_rows(build: Build) -> None:
    words = ["stage=sft", "data.max_samples=30", "data.val_size=9", "training.max_steps=3", "training.eval_steps=3",
             "training.learning_rate=0.02", "training.per_device_eval_batch_size=4", "method=full"]  # fmt: skip
    trainer = build(*words, "training.compute_accuracy=true")
    trainer.train()
    logged = trainer.evaluate()
    loss, accuracy = by_hand(trainer.model, list(trainer.eval_dataset))
    assert logged["eval_accuracy"] == pytest.approx(accuracy, abs=1e-6) and accuracy > 0
    assert logged["eval_loss"] == pytest.approx(loss, rel=1e-5), "a token weighs the same in every batch"
    plain = build(*words)
    plain.train()
    assert "eval_accuracy" not in plain.evaluate()


def test_tokens_a_second_are_logged_on_request(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter(range(0, 10_000, 10))
    monkeypatch.setattr("llmf_hydra.training.trainer.time.monotonic", lambda: float(next(seconds)))
    trainer = build(*SFT, "training.include_effective_tokens_per_second=true")
    trainer.train()
    size = trainer.args.per_device_train_batch_size
    tokens = sum(len(row["input_ids"]) for row in trainer.train_dataset.select(range(size)))
    assert tokens > 100
    logged = [line["effective_tokens_per_second"] for line in trainer.state.log_history if "loss" in line]
    assert logged[0] == pytest.approx(tokens / 10, abs=0.06), (
        "ten seconds passed between two looks at the clock"
    )
    silent = build(*SFT)
    silent.train()
    assert not any("effective_tokens_per_second" in line for line in silent.state.log_history)


def test_pre_training_packs_and_neat_packs_equal_single_rows(build: Build) -> None:
    words = [
        "stage=pt",
        *SGD,
        "data.cutoff_len=512",
        "training.max_steps=1",
        "training.per_device_train_batch_size=2",
    ]
    packed = build(*words, "data.neat_packing=true")
    assert "seq_lengths" in packed.train_dataset.column_names
    rows = [
        {"input_ids": ids, "labels": [-100, *ids[1:]]}
        for pack in packed.train_dataset.select(range(2))
        for ids in torch.tensor(pack["input_ids"]).split(pack["seq_lengths"])
        for ids in [ids.tolist()]
    ]
    assert len(rows) > 2
    expected, _ = by_hand(packed.model, rows)
    assert steps(packed)[0][0] == pytest.approx(expected, rel=1e-5)
    assert "seq_lengths" not in build(*words, "data.packing=false").train_dataset.column_names
