"""What every trainer has of its optimizer steps: the check of each, the running loss, the speed."""

import time
from typing import Any, cast

import torch
from torch import nn
from transformers import TrainingArguments

from llmf_hydra.runs import signals as interrupt
from llmf_hydra.training.batches import Key
from llmf_hydra.training.context import RunContext
from llmf_hydra.training.parallelism import check_processes
from llmf_hydra.training.resumable import ResumableTrainer
from llmf_hydra.training.state import RunningLoss

SPEED = "effective_tokens_per_second"


class SteppingTrainer(ResumableTrainer):
    """A trainer tells this class the `rows` of each batch, its `tokens`, and its loss (`health.add`)."""

    def __init__(
        self, context: RunContext, model: nn.Module | None, args: TrainingArguments, **own: Any
    ) -> None:
        self.rows: list[Key] = []  # of the current batch
        self.tokens = 0  # without padding, since the speed was asked for
        self.running_loss, self._since = RunningLoss(self), time.monotonic()
        super().__init__(context, model, args, **own)
        self.checkpoint.register("loss", self.running_loss)
        check_processes(context.cfg.launch, self.accelerator)

    def _get_grad_norm(self, model: nn.Module, grad_norm: torch.Tensor | float | None = None) -> object:
        """What Transformers asks for between the backward pass and the optimizer: here a bad step is stopped."""
        norm: Any = self._layerwise.norm() if self._layerwise else super()._get_grad_norm(model, grad_norm)
        self.health.check(norm, self.state.global_step + 1)
        return norm

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            speed = self._speed()
            if self.context.cfg.training.include_effective_tokens_per_second:
                logs[SPEED] = speed
        if "train_loss" in logs:
            logs["train_loss"] = self.running_loss.mean(logs["train_loss"])
        if "train_loss" in logs and interrupt.asked():
            return  # the end of the training, which hasn't come yet: the resumed run reports it
        super().log(logs, start_time)

    def _speed(self) -> float:
        """Tokens that all processes computed, without padding, per second of training since the last call."""
        now = time.monotonic()
        tokens = self.accelerator.reduce(torch.tensor(float(self.tokens), device=self.args.device))
        speed = float(cast("torch.Tensor", tokens)) / max(now - self._since, 1e-9)
        self.tokens, self._since = 0, now
        return round(speed, 1)

    def facts(self) -> dict[str, object]:
        """What the run's manifest says of the stage; all processes ask."""
        return {}

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        begun = time.monotonic()
        try:
            return super().evaluate(*args, **kwargs)
        finally:
            self._since += time.monotonic() - begun  # tokens per second are those of training
