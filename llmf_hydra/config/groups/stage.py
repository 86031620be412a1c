"""Group `stage`: which kind of training."""

from dataclasses import dataclass

from llmf_hydra.config.param import ALL_STAGES, param

ROWS = {
    "pt": "text",
    "sft": "dialogue",
    "rm": "preference",
    "dpo": "preference",
    "kto": "feedback",
    "ppo": "prompt",
}

REWARDS = (
    "rewards/chosen",
    "rewards/rejected",
    "rewards/accuracies",
    "rewards/margins",
    "logps/chosen",
    "logps/rejected",
)
GENERATED = ("bleu-4", "rouge-1", "rouge-2", "rouge-l", "exact_match")
# What an evaluation logs; nothing is known of a stage that has no tuple here.
METRICS: dict[str, tuple[str, ...]] = {
    "pt": ("loss", "accuracy"),
    "sft": ("loss", "accuracy", *GENERATED),
    "rm": ("loss", "accuracy", "margin", "rewards/chosen", "rewards/rejected"),
    "dpo": ("loss", *REWARDS),
    "kto": ("loss", "kl", *REWARDS),
    "ppo": (
        "loss",
        "objective/scores",
        "objective/kl",
        "objective/rlhf_reward",
        "objective/response_length",
    ),
}


@dataclass
class Stage:
    name: str = param(
        "sft",
        "Training stage: pt (pre-training), sft (supervised), rm (reward model), ppo, dpo, kto.",
        choices=ALL_STAGES,
    )

    @property
    def scores(self) -> bool:
        """Whether the model that is trained gives one number, and not text."""
        return self.name == "rm"

    @property
    def rows(self) -> str:
        """The kind of row this stage trains on."""
        return ROWS[self.name]
