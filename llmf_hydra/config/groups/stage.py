"""Group `stage`: the training stage."""

from dataclasses import dataclass

from llmf_hydra.config.choices import STAGES, StageInfo, planned
from llmf_hydra.config.param import param


@dataclass
class StageConfig:
    name: str = param(
        "sft",
        "Training stage: pt (pre-training), sft (supervised), rm (reward model), ppo, grpo, dpo, kto.",
        choices=tuple(STAGES),
        planned_choices=planned(STAGES),
    )

    @property
    def info(self) -> StageInfo:
        """The facts of the chosen stage."""
        return STAGES[self.name]

    @property
    def rows(self) -> str:
        """The kind of rows that the stage trains on."""
        return self.info.rows

    @property
    def scores(self) -> bool:
        """Whether the trained model gives a score instead of text."""
        return self.info.output == "score"
