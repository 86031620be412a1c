"""Group `stage`: which kind of training."""

from dataclasses import dataclass

from llmf_hydra.config.param import ALL_STAGES, param


@dataclass
class Stage:
    name: str = param(
        "sft",
        "Training stage: pt (pre-training), sft (supervised), rm (reward model), ppo, dpo, kto.",
        choices=ALL_STAGES,
        planned_choices=("pt", "rm", "ppo", "kto"),
    )
