"""What a checkpoint of TRL's trainers lacks: the answers that are being trained on, and metrics that aren't logged."""

from collections import defaultdict
from typing import Any

import torch


class Generations:
    """The buffer of a GRPOTrainer or RLOOTrainer, which a resumed run would else answer anew."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer

    def state_dict(self) -> dict[str, object]:
        """The count of micro-batches, the buffer if it will be read again, and the metrics of the training."""
        trainer = self._trainer
        every = trainer.args.steps_per_generation * trainer.num_iterations
        inside = trainer._step % every != 0
        return {
            "step": trainer._step,
            "inputs": _moved(trainer._buffered_inputs, "cpu") if inside else None,
            "metrics": {name: list(values) for name, values in trainer._metrics["train"].items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on within a saved buffer."""
        trainer = self._trainer
        trainer._step = state["step"]
        trainer._buffered_inputs = _moved(state["inputs"], trainer.args.device) if state["inputs"] else None
        trainer._metrics["train"] = defaultdict(list, state["metrics"])


def _moved(batches: list[dict[str, Any]], device: torch.device | str) -> list[dict[str, Any]]:
    """A copy on a device; each tensor of its own, since a slice would be saved with all that it was cut from."""
    return [{name: _copied(value, device) for name, value in batch.items()} for batch in batches]


def _copied(value: Any, device: torch.device | str) -> Any:
    return value.to(device, copy=True) if isinstance(value, torch.Tensor) else value
