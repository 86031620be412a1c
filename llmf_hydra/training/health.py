"""Whether a training is still one: loss and gradient are looked at once per optimizer step, before it steps.

Nothing that isn't finite is stepped on, saved or kept.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Sequence

import torch
from torch import nn

from llmf_hydra.errors import TrainingFailed
from llmf_hydra.training.batches import Key
from llmf_hydra.training.context import RunContext

STILL_STEPS = 3  # with a gradient of exactly 0 and a loss that isn't, after which a training has diverged
SMALL_LOSS = 1e-3  # a gradient of 0 at such a loss: everything is learned


class HealthCheck:
    """Collects the losses of an optimizer step on the device, and reads them with its gradient norm at once."""

    def __init__(self, context: RunContext):
        self._context = context
        self._losses: list[torch.Tensor] = []
        self._rows: list[Sequence[Key]] = []
        self._still = 0
        self._moved = False  # whether there has been a gradient at all

    def add(self, loss: torch.Tensor, rows: Sequence[Key]) -> None:
        """Note the loss of a micro-batch and the rows that it held."""
        self._losses.append(loss)
        self._rows.append(rows)

    def check(self, gradient_norm: torch.Tensor | float, step: int) -> None:
        """Raise TrainingFailed if optimizer step `step` must not be made; else forget its micro-batches."""
        norm = torch.as_tensor(gradient_norm, device=self._losses[0].device)
        numbers = torch.stack([value.float() for value in (*self._losses, norm)]).tolist()
        losses, rows = numbers[:-1], self._rows
        self._losses, self._rows = [], []
        for loss, held in zip(losses, rows, strict=True):
            if not math.isfinite(loss):
                raise TrainingFailed(f"step {step}: the loss is {loss}; {self._remedy(held)}")
        held = [key for batch in rows for key in batch]
        if not math.isfinite(numbers[-1]):
            raise TrainingFailed(f"step {step}: the gradient norm is {numbers[-1]}; {self._remedy(held)}")
        self._moved = self._moved or numbers[-1] > 0
        dead = self._moved and numbers[-1] == 0 and abs(sum(losses)) > SMALL_LOSS
        self._still = self._still + 1 if dead else 0
        if self._still == STILL_STEPS:
            raise TrainingFailed(
                f"step {step}: the training has diverged: for {STILL_STEPS} steps the gradient is exactly 0 and the "
                f"loss stays at {sum(losses):.4g}; {self._remedy(held)}"
            )

    def check_weights(self, model: nn.Module, stepped: Collection[torch.Tensor], step: int) -> None:
        """Raise TrainingFailed if a weight of those that are trained isn't finite, or so large that its norm isn't."""
        trained = [
            (name, weight)
            for name, weight in model.named_parameters()
            if weight.requires_grad or weight in stepped
        ]
        if not trained:
            return
        norms = torch.stack([torch.linalg.vector_norm(weight.detach().float()) for _, weight in trained])
        if not bool(norms.isfinite().all()):
            name = trained[norms.isfinite().tolist().index(False)][0]
            raise TrainingFailed(
                f"step {step}: the weights are no longer finite ({name}), so that nothing is saved; lower "
                f"training.learning_rate (it is {self._context.cfg.training.learning_rate:g})"
            )

    def _remedy(self, rows: Sequence[Key]) -> str:
        names, training = self._context.sources, self._context.cfg.training
        by_source: dict[str, list[int]] = defaultdict(list)
        for source, row in rows:
            by_source[names[source] if source < len(names) else f"dataset {source}"].append(int(row))
        shown = "; ".join(f"{name} {', '.join(map(str, sorted(at)))}" for name, at in by_source.items())
        return (
            f"the batch held the rows {shown}; lower training.learning_rate (it is {training.learning_rate:g}), set "
            "training.max_grad_norm, compute in float32 (model.compute_dtype=float32), or look at these rows with "
            "job=preview"
        )
