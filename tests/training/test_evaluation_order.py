"""Evaluation batches rows of like length: less padding, each row once, the same means."""

from typing import Any

import pytest
from support.stage_runs import Build

from llmf_hydra.models.architecture import padding_free

WORDS = ("data.max_samples=60", "data.val_size=40", "training.per_device_eval_batch_size=4",
         "training.eval_strategy=steps", "training.max_steps=1")  # fmt: skip


def batches(trainer: Any) -> list[dict[str, Any]]:
    return list(trainer.get_eval_dataloader())


def computed(found: list[dict[str, Any]]) -> int:
    """Tokens of all batches, padding included."""
    return sum(batch["input_ids"].numel() for batch in found)


@pytest.mark.parametrize("padded", [True, False], ids=["padded", "end to end"])
@pytest.mark.parametrize("stage", ["dpo", "sft"])
def test_rows_of_like_length_are_evaluated_together(
    stage: str, padded: bool, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    if padded:
        monkeypatch.setattr(padding_free, "unfit", lambda _: "it is asked for")
    trainer = build(f"stage={stage}", *WORDS)
    sorted_, by_length = batches(trainer), trainer.evaluate()
    monkeypatch.setattr(type(trainer), "rows_are_apart", property(lambda _: False))
    in_order, plain = batches(trainer), trainer.evaluate()
    rows = [[tuple(row) for batch in found for row in batch["rows"]] for found in (sorted_, in_order)]
    assert sorted(rows[0]) == sorted(rows[1]) and rows[0] != rows[1] and len(set(rows[0])) == 40
    assert computed(sorted_) < computed(in_order) if padded else computed(sorted_) == computed(in_order)
    widths = [batch["input_ids"].shape[1] for batch in sorted_]
    assert widths == sorted(widths, reverse=True)  # what takes most memory comes first
    assert by_length["eval_loss"] == pytest.approx(plain["eval_loss"], rel=2e-3)


@pytest.mark.parametrize("words", [("stage=kto",), ("stage=dpo", "rlhf.pref_loss=kto_pair")])
def test_estimates_over_a_batch_keep_the_order_of_the_rows(words: tuple[str, ...], build: Build) -> None:
    found = batches(build(*words, *WORDS))
    rows = [row for batch in found for _, row in batch["rows"]]
    kept = build(*words, *WORDS).eval_dataset["row"]
    assert rows == list(kept)
