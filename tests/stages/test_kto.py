"""`stage=kto` on the tiny model: the formula on whole batches, the mismatched pairs, weights, one-sided batches."""

import pytest
import torch
from support.stage_runs import SGD, Build, steps

from llmf_hydra.training.pairs import answer_batch, answer_log_probs

KTO = ["stage=kto", *SGD]


def cut(size: int, times: int) -> list[str]:
    return [f"training.per_device_train_batch_size={size}", f"training.gradient_accumulation_steps={times}"]


def test_a_step_does_not_depend_on_how_it_is_cut_into_batches(build: Build) -> None:
    done = [steps(build(*KTO, "rlhf.pref_ftx=0.1", *cut(*how))) for how in ((4, 1), (2, 2), (1, 4))]
    for losses, weights in done[1:]:
        assert losses == pytest.approx(done[0][0], rel=1e-5)
        for name, weight in weights.items():
            torch.testing.assert_close(weight, done[0][1][name], atol=1e-5, rtol=1e-4, msg=name)


def test_the_loss_of_a_batch_equals_the_formula(build: Build) -> None:
    words = ["rlhf.pref_beta=0.3", "rlhf.kto_chosen_weight=2", "rlhf.kto_rejected_weight=0.5"]
    trainer = build(*KTO, *words, "method=full")
    for weight in trainer.model.parameters():  # away from the reference
        weight.data += 0.01 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(3))
    rows = [trainer.train_dataset[at] for at in range(4)]
    pad = trainer.context.tokenizer.pad_token_id

    def ratios(answers: list[list[int]]) -> torch.Tensor:
        batch = answer_batch([row["prompt_ids"] for row in rows], answers, pad)
        with torch.no_grad():
            policy = answer_log_probs(trainer.model, batch, torch.float32)
            return policy - answer_log_probs(trainer.reference.own, batch, torch.float32)

    own = [row["completion_ids"] for row in rows]
    h, z = ratios(own), ratios([own[-1], *own[:-1]]).mean().clamp(min=0)
    good = torch.tensor([row["label"] for row in rows])
    expected = torch.where(
        good, 2 * (1 - torch.sigmoid(0.3 * (h - z))), 0.5 * (1 - torch.sigmoid(0.3 * (z - h)))
    )
    batch = trainer.data_collator(rows)
    trainer.rows = batch.pop("rows")
    loss = trainer.compute_loss(trainer.model, batch)
    assert good.any() and not good.all()
    assert loss.item() == pytest.approx(expected.mean().item(), abs=1e-6)


def test_each_parameter_changes_what_is_learned(build: Build) -> None:
    _, one = steps(build(*KTO))
    others = [
        "rlhf.kto_chosen_weight=3",
        "rlhf.kto_rejected_weight=3",
        "rlhf.pref_beta=0.5",
        "rlhf.pref_ftx=0.5",
    ]
    for other in others:
        _, two = steps(build(*KTO, other))
        assert any((one[name] - two[name]).abs().max() > 1e-6 for name in one), other


@pytest.mark.parametrize("label", [True, False], ids=["all good", "all bad"])
def test_batches_of_one_kind_train(label: bool, build: Build) -> None:
    trainer = build(*KTO)
    trainer.train_dataset = trainer.train_dataset.filter(lambda row: row["label"] is label)
    losses, _ = steps(trainer)
    logged = [line for line in trainer.state.log_history if "loss" in line]
    shown, absent = ("chosen", "rejected") if label else ("rejected", "chosen")
    assert all(f"rewards/{shown}" in line and f"rewards/{absent}" not in line for line in logged)
    assert losses[1] < losses[0]


def test_a_single_row_at_evaluation_has_no_divergence(build: Build) -> None:
    trainer = build("stage=kto", "training.per_device_eval_batch_size=1", "data.val_size=3", "training.max_steps=2",
                    "training.eval_steps=2", "data.max_samples=20")  # fmt: skip
    trainer.train()
    assert trainer.evaluate()["eval_kl"] == 0
