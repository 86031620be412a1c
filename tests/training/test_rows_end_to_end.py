"""Rows end to end train what padded rows train, in every stage, and say so."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.ppo_runs import SHORT, save_full
from support.stage_runs import SGD, Build, composed, steps

from llmf_hydra.models.architecture import padding_free
from llmf_hydra.training.layout.rows import Layout, layout_of

STAGES = {
    "pt": ["stage=pt", "data.packing=false"],
    "pt, packed": ["stage=pt", "data.cutoff_len=256"],
    "sft": ["stage=sft"],
    "sft, neat packs": ["stage=sft", "data.neat_packing=true", "data.cutoff_len=512"],
    "rm": ["stage=rm"],
    "dpo": ["stage=dpo"],
    "kto": ["stage=kto", "rlhf.pref_ftx=0.1"],
}
WORDS = [*SGD, "training.per_device_train_batch_size=3", "training.gradient_accumulation_steps=2",
         "data.max_samples=12", "data.val_size=4", "training.per_device_eval_batch_size=2",
         "training.learning_rate=0.1"]  # fmt: skip


def done(trainer: Any) -> tuple[list[float], dict[str, torch.Tensor], dict[str, float]]:
    losses, weights = steps(trainer)
    evaluated = {
        name: value
        for name, value in trainer.evaluate().items()
        if "second" not in name and "runtime" not in name
    }
    return losses, weights, evaluated


def test_ppo_computes_no_padding(build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rollouts, judged and trained: what is measured of them is the same to rounding."""
    save_full(tmp_path / "model")
    words = ["stage=ppo", *SHORT, "training.max_steps=2", "rlhf.reward_model_type=full", "optimizer=sgd",
             f"rlhf.reward_model={tmp_path / 'model'}", "rlhf.ppo_epochs=1"]  # fmt: skip
    logged: list[list[dict[str, float]]] = []
    for reason in (None, "it is asked for"):
        if reason:
            monkeypatch.setattr(padding_free, "unfit", lambda _: "it is asked for")
        trainer = build(*words)
        assert trainer.layout.by_row == (reason is None)
        trainer.train()
        logged.append([line for line in trainer.state.log_history if "loss" in line])
    for ours, padded in zip(*logged, strict=True):
        for name, value in ours.items():
            if "second" not in name:
                assert value == pytest.approx(padded[name], abs=1e-6, rel=1e-4), name


@pytest.mark.parametrize("method", ["lora", pytest.param("full", marks=pytest.mark.slow)])
@pytest.mark.parametrize("stage", STAGES)
def test_padding_changes_nothing(
    stage: str, method: str, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*STAGES[stage], f"method={method}", *WORDS]
    line = build(*words)
    assert line.facts()["padding"] == "none is computed" and line.layout.by_row
    losses, weights, evaluated = done(line)
    monkeypatch.setattr(padding_free, "unfit", lambda _: "it is asked for")
    below = build(*words)
    assert below.facts()["padding"] == "computed: it is asked for"
    expected = done(below)
    assert losses == pytest.approx(expected[0], abs=1e-6, rel=1e-6)
    assert evaluated == pytest.approx(expected[2], abs=2e-6, rel=1e-5)
    for name, weight in weights.items():
        torch.testing.assert_close(weight, expected[1][name], atol=1e-6, rtol=1e-5, msg=name)
    assert line.reference.store.folder != below.reference.store.folder if stage in ("dpo", "kto") else True


def test_what_is_padded_says_why(build: Build) -> None:
    trainer = build("stage=sft", *SGD, "data.ignore_pad_token_for_loss=false")
    assert trainer.facts()["padding"] == "computed: it is trained (data.ignore_pad_token_for_loss=false)"
    model = trainer.model
    noise = layout_of(composed("stage=sft", "training.neftune_noise_alpha=5"), model)
    assert "neftune_noise_alpha" in str(noise.padded) and not noise.line
    flash = model.get_base_model()
    assert layout_of(composed("stage=sft"), model) == Layout(None, by_row=True)
    flash.config._attn_implementation = "flash_attention_2"
    assert layout_of(composed("stage=sft"), model) == Layout(None), "positions tell the rows"
    flash.config._attn_implementation = "eager"
    assert layout_of(composed("stage=sft"), model).padded == "the attention is eager, not sdpa"
