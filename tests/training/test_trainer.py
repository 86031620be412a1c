"""What every stage does: stop at a loss that is no number, early stopping, the best model, datasets on their own."""

import json
from pathlib import Path

import pytest
import torch
from support.stage_runs import SGD, Build, steps

from llmf_hydra.errors import TrainingFailed

STAGES = ["pt", "sft", "rm", "dpo", "kto"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_loss_that_is_no_number_stops_with_step_rows_and_remedy(stage: str, build: Build) -> None:
    trainer = build(f"stage={stage}", *SGD, "training.per_device_train_batch_size=2", "data.packing=false")
    first = next(weight for weight in trainer.model.parameters() if weight.requires_grad)

    def spoil(*_: object, **__: object) -> None:
        first.data.fill_(torch.nan)

    trainer.callback_handler.callbacks[0].on_step_end = spoil
    with pytest.raises(TrainingFailed) as failed:
        trainer.train()
    said = str(failed.value)
    held = [trainer.train_dataset[at]["row"] for at in (2, 3)]  # the rows of the second step
    assert said.startswith("step 2: the loss is nan")
    assert (
        f"demo_{ {'pt': 'text', 'sft': 'instruct', 'kto': 'feedback'}.get(stage, 'preference') } {held[0]}, {held[1]};"
        in said
    )
    assert "training.learning_rate" in said and trainer.state.global_step == 1


def test_packs_name_all_their_rows(build: Build) -> None:
    trainer = build("stage=pt", *SGD)
    pack = trainer.train_dataset[0]
    assert len(pack["row"]) > 1
    batch = trainer.data_collator([pack])
    assert batch["rows"] == list(zip(pack["source"], pack["row"], strict=True))
    assert batch["tokens"] == len(pack["input_ids"])


WORSE = [
    "stage=sft",
    "data.max_samples=40",
    "data.val_size=8",
    "training.per_device_train_batch_size=4",
    "training.max_steps=12",
    "training.eval_steps=2",
    "training.save_steps=2",
    "training.logging_steps=2",
    "training.lr_scheduler_type=constant",
    "training.warmup_ratio=0",
    "training.learning_rate=0.1",
    "method=full",
]


def test_early_stopping_counts_evaluations_that_are_no_better(build: Build) -> None:
    trainer = build(*WORSE, "training.early_stopping_patience=1")
    trainer.train()
    seen = [line["eval_loss"] for line in trainer.state.log_history if "eval_loss" in line]
    best = min(range(len(seen)), key=seen.__getitem__)
    assert len(seen) == best + 2 and trainer.state.global_step == 2 * len(seen) < 12


def test_the_best_model_is_kept_on_request(build: Build) -> None:
    for keep in (True, False):
        choice = (
            ["training.metric_for_best_model=eval_loss", "training.greater_is_better=true"] if keep else []
        )
        trainer = build(*WORSE, f"training.load_best_model_at_end={keep}", *choice)
        trainer.train()
        losses = {
            line["step"]: line["eval_loss"] for line in trainer.state.log_history if "eval_loss" in line
        }
        best = max(losses, key=losses.__getitem__)
        assert best < 12, "asked for the worst, it isn't the last"
        wanted = best if keep else 12
        assert trainer.evaluate()["eval_loss"] == pytest.approx(losses[wanted], rel=1e-4)
        if keep:
            assert Path(trainer.state.best_model_checkpoint).name == f"checkpoint-{best}"


def test_metric_and_direction_decide_which_is_best(build: Build) -> None:
    words = [
        "stage=dpo",
        "data.max_samples=40",
        "data.val_size=8",
        "training.max_steps=8",
        "training.eval_steps=2",
        "training.save_steps=2",
        "training.learning_rate=0.05",
        "training.load_best_model_at_end=true",
    ]
    metric = "eval_rewards/margins"
    for greater, choose in ((None, max), (False, min)):
        more = [] if greater is None else [f"training.greater_is_better={greater}"]
        trainer = build(*words, f"training.metric_for_best_model={metric}", *more)
        trainer.train()
        seen = {line["step"]: line[metric] for line in trainer.state.log_history if metric in line}
        assert trainer.state.best_metric == choose(seen.values())


def test_the_objective_of_a_sweep_decides_where_no_metric_is_named(build: Build) -> None:
    trainer = build(
        "stage=rm",
        "training.early_stopping_patience=3",
        "tracking.objective=eval_margin",
        "tracking.direction=maximize",
    )
    assert (trainer.args.metric_for_best_model, trainer.args.greater_is_better) == ("eval_margin", True)


@pytest.mark.parametrize("stage", ["sft", "dpo", "kto", "rm"])
def test_each_dataset_is_evaluated_on_its_own(stage: str, build: Build) -> None:
    trainer = build(
        f"stage={stage}",
        "training.max_steps=1",
        "training.eval_steps=1",
        "data.max_samples=20",
        "data.val_size=6",
        "training.warmup_ratio=0",
        "training.learning_rate=0.05",
    )
    halves = {
        "first": trainer.eval_dataset.select(range(2)),
        "second": trainer.eval_dataset.select(range(2, 6)),
    }
    trainer.eval_dataset = halves
    trainer.train()
    apart = {k: v for line in trainer.state.log_history for k, v in line.items() if k.startswith("eval_")}
    assert {"eval_first_loss", "eval_second_loss"} <= apart.keys() and "eval_loss" not in apart
    shared = {"dpo": "rewards/margins", "kto": "logps/rejected", "rm": "margin"}.get(stage)
    if shared:
        assert apart[f"eval_first_{shared}"] != apart[f"eval_second_{shared}"]
    first = trainer.evaluate(halves["first"])
    assert first["eval_loss"] == pytest.approx(apart["eval_first_loss"], rel=1e-5)


@pytest.mark.parametrize("stage", STAGES)
def test_a_resumed_run_goes_on_to_the_same_result(stage: str, build: Build) -> None:
    words = [
        f"stage={stage}",
        *SGD,
        "training.disable_shuffling=false",
        "training.max_steps=4",
        "training.per_device_train_batch_size=2",
        "training.learning_rate=0.1",
        "method.lora_dropout=0.1",
        "training.save_strategy=steps",
        "training.save_steps=2",
    ]
    whole, again = build(*words), build(*words)
    losses, weights = steps(whole)
    again.train(resume_from_checkpoint=f"{whole.args.output_dir}/checkpoint-2")
    resumed = json.loads((Path(again.args.output_dir) / "checkpoint-4" / "trainer_state.json").read_text())
    assert [line["loss"] for line in resumed["log_history"] if "loss" in line] == losses
    for name, weight in again.model.named_parameters():
        assert not weight.requires_grad or torch.equal(weight, weights[name]), name


@pytest.mark.parametrize("stage", STAGES)
def test_checkpointed_activations_change_nothing(stage: str, build: Build) -> None:
    done = [
        steps(
            build(
                f"stage={stage}",
                *SGD,
                "training.learning_rate=0.1",
                f"model.disable_gradient_checkpointing={off}",
            )
        )
        for off in (True, False)
    ]
    assert done[0][0] == pytest.approx(done[1][0], rel=1e-6)
    for name, weight in done[0][1].items():
        torch.testing.assert_close(weight, done[1][1][name])


def test_an_evaluation_between_two_lines_takes_nothing_from_the_next_line(build: Build) -> None:
    words = ["stage=dpo", *SGD, "training.logging_steps=4", "training.max_steps=4", "data.val_size=8"]
    lines = []
    for between in (2, 4):
        trainer = build(*words, "training.eval_strategy=steps", f"training.eval_steps={between}")
        trainer.train()
        lines.append(next(line for line in trainer.state.log_history if "loss" in line))
    shown = ("loss", "rewards/margins", "rewards/accuracies")
    assert [lines[0][name] for name in shown] == [lines[1][name] for name in shown]
    assert lines[0]["rewards/margins"] != 0
