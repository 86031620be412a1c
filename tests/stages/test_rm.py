"""`stage=rm` on the tiny model: the pairwise loss, and a saved model that plain libraries load with its head."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.stage_runs import SGD, Build, steps
from torch.nn import functional as F

from llmf_hydra import optional

RM = ["stage=rm", *SGD]


@pytest.fixture(autouse=True)
def _all_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """`llmf score` leaves packages out of its own process, which is this one here."""
    monkeypatch.setattr(optional, "leave_out_unused", lambda *_: None)


def scores(model: Any, rows: list[dict[str, Any]]) -> torch.Tensor:
    """Scores of (chosen, rejected), one sequence at a time, shape (rows, 2)."""
    model.eval()
    with torch.no_grad():
        return torch.tensor(
            [
                [
                    model(torch.tensor([row["prompt_ids"] + row[side]])).logits.item()
                    for side in ("chosen_ids", "rejected_ids")
                ]
                for row in rows
            ]
        )


def test_a_step_does_not_depend_on_how_it_is_cut_into_batches(build: Build) -> None:
    done = [
        steps(
            build(
                *RM,
                "training.learning_rate=0.1",
                f"training.per_device_train_batch_size={size}",
                f"training.gradient_accumulation_steps={times}",
            )
        )
        for size, times in ((4, 1), (2, 2), (1, 4))
    ]
    for losses, weights in done[1:]:
        assert losses == pytest.approx(done[0][0], rel=1e-5)
        for name, weight in weights.items():
            torch.testing.assert_close(weight, done[0][1][name], atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("method", ["lora", "full", "freeze"])
def test_plain_libraries_load_the_model_with_its_head(method: str, build: Build, tmp_path: Path) -> None:
    trainer = build(
        "stage=rm",
        f"method={method}",
        "data.max_samples=24",
        "data.val_size=8",
        "training.max_steps=4",
        "training.eval_steps=4",
        "training.learning_rate=0.02",
    )
    trainer.train()
    trainer.save_model(str(tmp_path / "final"))
    held_out = list(trainer.eval_dataset)
    ours = scores(trainer.model, held_out)
    assert (ours[:, 0] - ours[:, 1]).abs().min() > 1e-6
    if method == "lora":
        from peft import AutoPeftModelForSequenceClassification as Loader
    else:
        from transformers import AutoModelForSequenceClassification as Loader
    loaded = Loader.from_pretrained(tmp_path / "final", num_labels=1)
    torch.testing.assert_close(scores(loaded, held_out), ours)
    logged = trainer.evaluate()
    difference = ours[:, 0] - ours[:, 1]
    assert logged["eval_loss"] == pytest.approx(-F.logsigmoid(difference).mean().item(), rel=1e-4)
    assert logged["eval_accuracy"] == pytest.approx((difference > 0).float().mean().item())
    assert logged["eval_margin"] == pytest.approx(difference.mean().item(), rel=1e-4)


def test_the_plain_layout_trains_alike(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = build(*RM, "training.learning_rate=0.1")
    assert shared.data_collator.collate.shared
    expected = steps(shared)
    monkeypatch.setattr("llmf_hydra.stages.rm.shares_prompt", lambda *_: False)
    plain = build(*RM, "training.learning_rate=0.1")
    assert not plain.data_collator.collate.shared
    losses, weights = steps(plain)
    assert losses == pytest.approx(expected[0], rel=1e-5)
    for name, weight in weights.items():
        torch.testing.assert_close(weight, expected[1][name], atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("method", ["lora", "freeze"])
def test_the_head_is_trained_whatever_the_method(method: str, build: Build) -> None:
    trainer = build(*RM, f"method={method}")
    heads = {
        n: w.detach().clone() for n, w in trainer.model.named_parameters() if "score" in n and w.requires_grad
    }
    trainer.train()
    after = dict(trainer.model.named_parameters())
    assert heads and all((after[name] != weight).any() for name, weight in heads.items())


def test_a_file_of_answers_is_scored_as_in_training(
    build: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from llmf_hydra import paths
    from llmf_hydra.cli import score

    trainer = build(
        "stage=rm",
        "data.max_samples=6",
        "data.val_size=0",
        "training.eval_strategy=no",
        "training.max_steps=2",
        "training.learning_rate=0.02",
    )
    trainer.train()
    trainer.save_model(str(tmp_path / "final"))
    asked = [
        json.loads(line) for line in (paths.data_dir() / "demo_preference.jsonl").read_text().splitlines()[:6]
    ]
    answers = [
        {
            "instruction": row["instruction"],
            "input": row.get("input", ""),
            "output": row["chosen"],
            "system": row.get("system", ""),
        }
        for row in asked
    ]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers))
    assert (
        score.main([str(tmp_path / "answers.jsonl"), "--model", str(tmp_path / "final"), "--batch", "4"]) == 0
    )
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith('{"row"')]
    rows = sorted(trainer.train_dataset, key=lambda row: row["row"])
    expected = scores(trainer.model, rows)[:, 0]
    assert [line["row"] for line in lines] == [row["row"] for row in rows]
    torch.testing.assert_close(
        torch.tensor([line["score"] for line in lines]), expected, atol=1e-4, rtol=1e-4
    )


def test_a_model_that_gives_text_scores_nothing(build: Build, tmp_path: Path) -> None:
    from llmf_hydra.cli import score
    from llmf_hydra.errors import Refused
    from llmf_hydra.models.builtin import tiny

    (tmp_path / "answers.jsonl").write_text('{"instruction": "a", "output": "b"}\n')
    with pytest.raises(Refused, match="gives text and no scores"):
        score.main([str(tmp_path / "answers.jsonl"), "--model", str(tiny.ready())])


def test_a_reward_model_from_scratch_has_no_weight_of_the_file(build: Build) -> None:
    def first_layer(*words: str) -> torch.Tensor:
        return build(*RM, "method=full", *words).model.model.layers[0].mlp.up_proj.weight

    loaded, scratch, other = (
        first_layer(),
        first_layer("model.train_from_scratch=true"),
        first_layer("model.train_from_scratch=true", "training.seed=43"),
    )
    assert not torch.equal(loaded, scratch) and not torch.equal(scratch, other)
    assert torch.equal(loaded, first_layer("training.seed=43"))
