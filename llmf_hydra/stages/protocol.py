"""What a stage's file must have, and how it is reached by the stage's name."""

from importlib import import_module
from typing import Protocol, cast

from llmf_hydra.training.context import RunContext
from llmf_hydra.training.trainer import SteppingTrainer


class Stage(Protocol):
    """A file of this room, named as `stage.name` names it."""

    def build_trainer(self, context: RunContext) -> SteppingTrainer:
        """The stage's trainer of a run whose pieces are loaded. Raises Refused."""
        ...


def load_stage(name: str) -> Stage:
    """The stage of that name."""
    return cast("Stage", import_module(f"llmf_hydra.stages.{name}"))
