"""Group `stage`: which kind of training."""

from dataclasses import dataclass

from llmf_hydra.config.param import ALL_STAGES, param


ROWS = {"pt": "text", "sft": "dialogue", "rm": "preference", "dpo": "preference", "kto": "feedback", "ppo": "prompt"}


@dataclass
class Stage:
    name: str = param(
        "sft",
        "Training stage: pt (pre-training), sft (supervised), rm (reward model), ppo, dpo, kto.",
        choices=ALL_STAGES,
        planned_choices=("pt", "rm", "ppo", "kto"),
    )

    @property
    def rows(self) -> str:
        """The kind of row this stage trains on."""
        return ROWS[self.name]
