"""Group `rlhf`: preference losses, PPO, reference and reward models (spec table rlhf)."""

from dataclasses import dataclass

from llmf_hydra.config.choices import stages
from llmf_hydra.config.param import param

DPO = {"stage.name": stages(lambda stage: stage.several_losses)}
KTO = {"stage.name": ("kto",)}
PPO = {"stage.name": ("ppo",)}
PREFERENCE = {"stage.name": stages(lambda stage: stage.preference)}
REFERENCE = {"stage.name": stages(lambda stage: stage.reference)}
OWN_REWARD = {**PPO, "rlhf.reward_model_type": ("full",)}
REFERENCE_FREE = ("orpo", "simpo")  # losses that need no reference model


@dataclass
class RlhfConfig:
    pref_beta: float = param(
        0.1, "Strength of the pull to the reference model in the preference loss.", gt=0, only=PREFERENCE
    )
    pref_ftx: float = param(0.0, "Weight of the supervised loss on the chosen answer.", ge=0, only=PREFERENCE)
    pref_loss: str = param(
        "sigmoid",
        "Preference loss: sigmoid (DPO), hinge (SLiC), ipo, kto_pair, orpo, simpo.",
        choices=("sigmoid", "hinge", "ipo", "kto_pair", "orpo", "simpo"),
        only=DPO,
    )
    dpo_label_smoothing: float = param(
        0.0,
        "Probability that a label is wrong (conservative DPO).",
        ge=0,
        le=0.5,
        only={**DPO, "rlhf.pref_loss": ("sigmoid",)},
    )
    simpo_gamma: float = param(
        0.5,
        "Reward margin of SimPO (arXiv:2405.14734).",
        ge=0,
        only={**DPO, "rlhf.pref_loss": ("simpo",)},
    )
    kto_chosen_weight: float = param(1.0, "Weight of KTO's loss on good answers.", ge=0, only=KTO)
    kto_rejected_weight: float = param(1.0, "Weight of KTO's loss on bad answers.", ge=0, only=KTO)
    ppo_buffer_size: int = param(
        1,
        "Rollout batches that PPO collects before an update, each of the rows of an optimizer step.",
        ge=1,
        only=PPO,
    )
    ppo_epochs: int = param(4, "Passes of PPO over each buffer.", ge=1, only=PPO)
    ppo_score_norm: bool = param(
        False, "Normalise the scores of the reward model by running moments.", only=PPO
    )
    ppo_target: float = param(
        6.0, "KL of an answer, in nats, that PPO's adaptive controller aims at.", gt=0, only=PPO
    )
    ppo_whiten_rewards: bool = param(
        False, "Whiten the rewards before the advantages are computed.", only=PPO
    )
    ref_model: str | None = param(
        None, "Reference model: a path or a hub name; null takes the start of the run.", only=REFERENCE
    )
    ref_model_adapters: str | None = param(
        None, "Adapters of the reference model, separated by commas.", only=REFERENCE
    )
    ref_model_quantization_bit: int | None = param(
        None, "Bits the reference model is quantized to: 4 or 8.", ge=4, le=8, only=REFERENCE
    )
    reward_model: str | None = param(
        None, "Reward model: a path, a hub name, or the URL of a service.", only=PPO
    )
    reward_model_adapters: str | None = param(
        None, "Adapters merged into the reward model, separated by commas.", only=OWN_REWARD
    )
    reward_model_quantization_bit: int | None = param(
        None, "Bits the reward model is quantized to: 4 or 8.", ge=4, le=8, only=OWN_REWARD
    )
    reward_model_type: str = param(
        "lora",
        "How the reward comes: lora (adapter on the shared base), full (a model of its own), api (HTTP).",
        choices=("lora", "full", "api"),
        only=PPO,
    )

    @property
    def reference_free(self) -> bool:
        """Whether the preference loss needs no reference model."""
        return self.pref_loss in REFERENCE_FREE
