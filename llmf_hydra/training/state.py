"""What a checkpoint adds to Transformers' own: the states of parts that register here, in one file per process."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import Trainer

from llmf_hydra.errors import TrainingFailed
from llmf_hydra.runs.seal import STATE

FILE = "stage_state_{rank}.pt"
States = dict[str, dict[str, Any]]  # of the parts, by name


class Stateful(Protocol):
    """A part of a trainer whose state a resumed run needs."""

    def state_dict(self) -> dict[str, object]:
        """The state as plain values and tensors on the CPU, which `torch.load(weights_only=True)` reads."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a saved state."""
        ...


class CheckpointState:
    """The parts of a trainer that have a state, by name."""

    def __init__(self) -> None:
        self._parts: dict[str, Stateful] = {}
        self._required: set[str] = set()
        self.older: Callable[[Path, int], States] = (
            lambda folder, rank: {}
        )  # reads what an older version wrote

    def register(self, name: str, part: Stateful, *, required: bool = False) -> None:
        """Have a part saved and loaded; a `required` one can't be resumed without its state."""
        self._parts[name] = part
        if required:
            self._required.add(name)

    def save(self, folder: Path, rank: int) -> None:
        """Write all states of this process into a checkpoint's folder."""
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(
            {name: part.state_dict() for name, part in self._parts.items()}, folder / FILE.format(rank=rank)
        )

    def load(self, folder: Path, rank: int) -> None:
        """Hand each part its state, where the checkpoint holds one. Raises TrainingFailed for a required one."""
        file = folder / FILE.format(rank=rank)
        states: States = torch.load(file, weights_only=True) if file.exists() else self.older(folder, rank)
        missing = sorted(self._required - states.keys())
        if missing:
            raise TrainingFailed(f"{folder} can't be resumed: {file.name} holds no state of {missing[0]}")
        for name, part in self._parts.items():
            if name in states:
                part.load_state_dict(states[name])


def logged_before(folder: Path | None) -> tuple[dict[str, Any], ...]:
    """What was logged before a checkpoint was written, in its order; nothing where there isn't one."""
    if folder is None:
        return ()
    history: list[dict[str, Any]] = json.loads((folder / STATE).read_text(encoding="utf8"))["log_history"]
    return tuple(history)


class RunningLoss:
    """The training loss as Transformers adds it up, carried over to a resumed run."""

    def __init__(self, trainer: Trainer):
        self._trainer = trainer
        self._loaded = False

    def mean(self, since_resumed: float) -> float:
        """The mean over all steps of the run; `since_resumed` where the checkpoint didn't hold its sum."""
        steps = self._trainer.state.global_step
        return self._trainer._total_loss_scalar / max(steps, 0.001) if self._whole else since_resumed

    @property
    def _whole(self) -> bool:
        return self._loaded or self._trainer._initial_global_step == 0

    def state_dict(self) -> dict[str, object]:
        """The sum of the logged steps, and that of the steps since the last line."""
        trainer = self._trainer
        return {
            "logged": trainer._total_loss_scalar,
            "pending": trainer._tr_loss.item(),
            "last_logged_step": trainer._globalstep_last_logged,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from saved sums."""
        trainer, self._loaded = self._trainer, True
        trainer._total_loss_scalar = state["logged"]
        trainer._tr_loss += state["pending"]
        trainer._globalstep_last_logged = state["last_logged_step"]
