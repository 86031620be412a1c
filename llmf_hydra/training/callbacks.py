"""Callbacks of every trainer, those of tracking aside."""

import time
from collections.abc import Callable

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from llmf_hydra.runs import signals as interrupt
from llmf_hydra.training.parallelism import any_process


class StopWhenAsked(TrainerCallback):
    """Saves the trainer's state and stops after the step in which SIGTERM or Ctrl-C came."""

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        if any_process(interrupt.asked(), args.device):  # they must stop after the same step
            control.should_save = True
            control.should_evaluate = False
            control.should_training_stop = True


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
