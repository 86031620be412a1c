"""Callbacks of every trainer, those of tracking aside."""

import time
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from llmf_hydra.runs import signals as interrupt
from llmf_hydra.training.parallelism import any_process


class StopWhenAsked(TrainerCallback):
    """Saves the trainer's state and stops after the step in which SIGTERM or Ctrl-C came.

    An evaluation that is due at that step would hold up the end: the resumed run does it, before its first step.
    """

    def __init__(self) -> None:
        self.evaluation_is_due = False
        self._stopping = False

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        self.evaluation_is_due = _ends_epoch(args, state)  # it comes after what is saved at this step
        if any_process(interrupt.asked(), args.device):  # they must stop after the same step
            self.evaluation_is_due |= control.should_evaluate
            self._stopping = True
            control.should_save = True
            control.should_evaluate = False
            control.should_training_stop = True

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        self.evaluation_is_due = False

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        if self._stopping:  # the epoch is left, and the state is saved
            control.should_save = control.should_evaluate = False

    def state_dict(self) -> dict[str, object]:
        """What the run that goes on has to make up for."""
        return {"evaluation_is_due": self.evaluation_is_due}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a saved state."""
        self.evaluation_is_due = state["evaluation_is_due"]


def _ends_epoch(args: TrainingArguments, state: TrainerState) -> bool:
    """Whether an evaluation per epoch follows this step."""
    epoch = state.epoch or 0.0
    ended = epoch == int(epoch) or state.global_step >= state.max_steps
    return args.eval_strategy == "epoch" and ended


class FirstStep(TrainerCallback):
    """Notes when the first optimizer step ended, as seconds since the epoch."""

    def __init__(self) -> None:
        self.at: float | None = None

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        if self.at is None:
            self.at = time.time()


class RestoreState(TrainerCallback):
    """Calls back when a training begins, after the checkpoint's weights and optimizer are loaded."""

    def __init__(self, restore: Callable[[], None]) -> None:
        self._restore = restore

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        self._restore()
