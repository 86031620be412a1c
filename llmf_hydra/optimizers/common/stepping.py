"""Optimizers that step one weight at a time, either all at `step()` or each within the backward pass."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from llmf_hydra.errors import TrainingFailed
from llmf_hydra.optimizers.common.adam import Settings


class PerWeightOptimizer(Optimizer):
    """An optimizer whose update of a weight needs no other weight. Its state is plain tensors and numbers."""

    layerwise: "Layerwise | None" = None

    def __init__(self, groups: Sequence[Any], settings: Settings):
        super().__init__(groups, settings)

    @abstractmethod
    def update(self, weight: nn.Parameter, group: Settings) -> None:
        """Step a weight that has a gradient. Called without autograd."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Step every weight that has a gradient; layerwise they have all been stepped by now."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self.update(weight, group)
        if self.layerwise is not None:
            self.layerwise.end_step()

    def step_in_backward(self) -> None:
        """From now on, step each weight as soon as the backward pass has its gradient, and free the gradient."""
        self.layerwise = Layerwise(self)


class Layerwise:
    """Steps weights from hooks of the backward pass, so that no two gradients need be held at a time.

    A weight whose gradient isn't finite is left as it is; `norm` then isn't finite either.
    """

    def __init__(self, optimizer: PerWeightOptimizer):
        self._optimizer = optimizer
        self._norms: dict[nn.Parameter, torch.Tensor] = {}  # of the gradients of this step
        self._groups: dict[nn.Parameter, int] = {}
        self._hooks: list[RemovableHandle] = []
        for number, group in enumerate(optimizer.param_groups):
            for weight in group["params"]:
                self._groups[weight] = number
                self._hooks.append(weight.register_post_accumulate_grad_hook(self._step))

    def norm(self) -> torch.Tensor:
        """The norm of the whole gradient of this step, a scalar in float32."""
        norms = list(self._norms.values())
        return torch.linalg.vector_norm(torch.stack(norms)) if norms else torch.zeros(())

    def release(self) -> None:
        """Leave the backward pass alone from now on."""
        for hook in self._hooks:
            hook.remove()

    def end_step(self) -> None:
        """Make ready for the next step."""
        self._norms = {}

    @torch.no_grad()
    def _step(self, weight: torch.Tensor) -> None:
        assert isinstance(weight, nn.Parameter) and weight.grad is not None
        if weight in self._norms:
            raise TrainingFailed(
                "a layerwise optimizer steps each weight once per backward pass, and a weight of shape "
                f"{tuple(weight.shape)} got gradients twice: set model.use_reentrant_gc=false, or turn layerwise off"
            )
        wide = torch.promote_types(weight.grad.dtype, torch.float32)
        self._norms[weight] = norm = torch.linalg.vector_norm(weight.grad, dtype=wide).float()
        if torch.isfinite(norm):
            # Looked up at each step: loading a state replaces the groups.
            self._optimizer.update(weight, self._optimizer.param_groups[self._groups[weight]])
        weight.grad = None
