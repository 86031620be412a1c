"""A stop at a step that is evaluated: the run that goes on makes up for it, and logs what an undisturbed one does."""

from pathlib import Path
from typing import Any

import pytest
from support.command_line import CLOCK
from support.stage_runs import Build
from transformers import TrainerCallback

from llmf_hydra.runs import signals

WORDS = ("stage=sft", "data.max_samples=14", "data.val_size=6", "training.per_device_train_batch_size=2",
         "training.logging_steps=1", "training.max_steps=6", "training.learning_rate=0.01",
         "training.save_strategy=no", "method.lora_dropout=0.2")  # fmt: skip
STEPS = ("training.eval_strategy=steps", "training.eval_steps=2")
EPOCHS = ("training.eval_strategy=epoch",)  # of 4 steps
EARLY = (*STEPS, "training.early_stopping_patience=1", "training.learning_rate=1e-30")  # it ends after step 4


undisturbed: dict[
    tuple[str, ...], list[dict[str, float]]
] = {}  # the log of each run that isn't stopped, made once


class SignalAt(TrainerCallback):
    """What SIGTERM does, within one step."""

    def __init__(self, step: int):
        self._step = step

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        signals._state["asked"] = state.global_step + 1 == self._step


def lines(trainer: Any) -> list[dict[str, float]]:
    known = trainer.state.log_history
    return [{key: value for key, value in line.items() if not CLOCK.search(key)} for line in known]


@pytest.mark.parametrize(
    ("words", "stop"),
    [(STEPS, 2), (STEPS, 3), (STEPS, 6), (EPOCHS, 4), (EPOCHS, 3), (EPOCHS, 6), (EARLY, 4)],
    ids=[
        "evaluated",
        "not evaluated",
        "the last",
        "end of an epoch",
        "within an epoch",
        "cut epoch",
        "early end",
    ],
)
def test_the_log_is_that_of_an_undisturbed_run(
    words: tuple[str, ...], stop: int, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    if words not in undisturbed:
        whole = build(*WORDS, *words)
        whole.train()
        undisturbed[words] = lines(whole)
    assert any("eval_loss" in line for line in undisturbed[words])

    monkeypatch.setitem(signals._state, "asked", False)
    stopped = build(*WORDS, *words)
    stopped.add_callback(SignalAt(stop))
    stopped.train()
    out = Path(stopped.args.output_dir)
    assert [folder.name for folder in out.glob("checkpoint-*")] == [f"checkpoint-{stop}"]
    assert not any("eval_loss" in line for line in lines(stopped) if line["step"] == stop)
    assert stopped.state.global_step == stop

    signals._state["asked"] = False
    again = build(*WORDS, *words)
    again.train(resume_from_checkpoint=str(out / f"checkpoint-{stop}"))
    assert lines(again) == undisturbed[words]


def test_a_checkpoint_before_the_evaluation_of_its_epoch_knows_that_it_follows(build: Build) -> None:
    words = [*WORDS, *EPOCHS, "training.save_strategy=steps", "training.save_steps=4"]
    whole, again = build(*words), build(*words)
    whole.train()
    again.train(resume_from_checkpoint=str(Path(whole.args.output_dir) / "checkpoint-4"))
    assert [line["step"] for line in lines(whole) if "eval_loss" in line] == [4, 6]
    assert lines(again) == lines(whole)
