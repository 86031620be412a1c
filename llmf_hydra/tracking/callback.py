"""The one bridge from a Transformers trainer to the trackers and to the terminal."""

import sys
import time
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any, TextIO

from tqdm import tqdm
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from llmf_hydra.tracking.contract import Table
from llmf_hydra.tracking.open import Trackers

# What a line shows of the metrics, in this order, and how; their eval_ twins likewise.
SHOWN = {
    "loss": ".4f",
    "train_loss": ".4f",
    "rewards/accuracies": ".2f",
    "rewards/margins": ".3f",
    "accuracy": ".2f",
    "mean_token_accuracy": ".2f",
    "reward": ".3f",
    "frac_reward_zero_std": ".2f",
    "pass_at_1": ".2f",
    "objective/rlhf_reward": ".3f",
    "objective/kl": ".3f",
    "learning_rate": ".1e",
}
SHORT = {
    "learning_rate": "lr",
    "frac_reward_zero_std": "no spread",  # of groups: nothing is learned from them
    "eval_frac_reward_zero_std": "no spread",
}


def watch(
    trainer: Trainer,
    trackers: Trackers,
    *,
    vram: bool = False,
    table: Callable[[], Table | None] | None = None,
) -> None:
    """Have the trainer report to the trackers and print our lines in place of its own.

    `vram` adds GPU memory; `table` gives what is shown beside the metrics of a logging step.
    """
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(TrackerCallback(trackers, vram=vram, table=table))


class TrackerCallback(TrainerCallback):
    """Passes metrics on, prints a line a logging step, and shows a bar where `terminal` is one."""

    def __init__(
        self,
        trackers: Trackers,
        terminal: TextIO | None = None,
        *,
        vram: bool = False,
        table: Callable[[], Table | None] | None = None,
    ):
        self._trackers = trackers
        self._vram = vram
        self._table = table or (lambda: None)
        self._terminal = terminal or sys.stderr
        self._bar: tqdm[Any] | None = None
        self._since = (0, time.monotonic())  # step and time of the last line of training

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        self._since = (state.global_step, time.monotonic())
        if state.is_world_process_zero and self._terminal.isatty():
            steps, done = state.max_steps, state.global_step
            self._bar = tqdm(total=steps, initial=done, file=self._terminal, unit="step", dynamic_ncols=True)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        if self._bar is not None:
            self._bar.update(state.global_step - self._bar.n)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, object] | None = None,
        **kwargs: object,
    ) -> None:
        if not state.is_world_process_zero or not logs:
            return
        metrics = {key: float(value) for key, value in logs.items() if isinstance(value, Real)}
        if self._vram:
            metrics |= gpu_memory()
        self._trackers.log(metrics, state.global_step)
        if "loss" in metrics and (table := self._table()) is not None:
            self._trackers.log_table(table)
        pace = self._pace(state.global_step) if "loss" in metrics else None
        tqdm.write(progress_line(metrics, state.global_step, state.max_steps, pace), file=sys.stdout)
        sys.stdout.flush()  # a line is news, also in a pipe

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _pace(self, step: int) -> float | None:
        """Seconds a step since the last line of training, or None where no step was done since."""
        (last_step, last_time), now = self._since, time.monotonic()
        self._since = (step, now)
        return (now - last_time) / (step - last_step) if step > last_step else None


def gpu_memory() -> dict[str, float]:
    """The peak memory of this process's GPU so far in GB (2**30 bytes): in tensors, and held by the allocator."""
    import torch

    return {
        "vram_allocated": torch.cuda.max_memory_allocated() / 2**30,
        "vram_reserved": torch.cuda.max_memory_reserved() / 2**30,
    }


def progress_line(metrics: dict[str, float], step: int, steps: int, pace: float | None) -> str:
    """`step 10/60  loss 0.6931  lr 1.0e-04  3.1 s/step`; `pace` is in seconds a step."""
    known = {prefix + key: form for prefix in ("", "eval_") for key, form in SHOWN.items()}
    shown = {key: form for key, form in known.items() if key in metrics}
    shown = shown or dict.fromkeys(list(metrics)[:4], ".4g")  # a stage with other names
    values = [f"{SHORT.get(key, key)} {metrics[key]:{form}}" for key, form in shown.items()]
    speed = [] if pace is None else [f"{pace:.1f} s/step" if pace >= 1 else f"{pace:.2f} s/step"]
    return "  ".join([f"step {step}/{steps}", *values, *speed])
