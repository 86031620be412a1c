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
        0.1,
        "Beta of the preference loss: strength of the KL constraint to the reference model.",
        gt=0,
        only=PREFERENCE,
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
        "Label smoothing of conservative DPO: probability that a label is flipped.",
        ge=0,
        le=0.5,
        only={**DPO, "rlhf.pref_loss": ("sigmoid",)},
    )
    simpo_gamma: float = param(
        0.5,
        "Target reward margin of SimPO (arXiv:2405.14734).",
        ge=0,
        only={**DPO, "rlhf.pref_loss": ("simpo",)},
    )
    kto_chosen_weight: float = param(1.0, "KTO loss weight of desirable answers.", ge=0, only=KTO)
    kto_rejected_weight: float = param(1.0, "KTO loss weight of undesirable answers.", ge=0, only=KTO)
    ppo_buffer_size: int = param(
        1,
        "Rollout batches collected before each PPO update; a batch is as large as an optimizer step.",
        ge=1,
        only=PPO,
    )
    ppo_epochs: int = param(4, "PPO epochs per buffer.", ge=1, only=PPO)
    ppo_score_norm: bool = param(
        False, "Normalize reward scores by their running mean and deviation.", only=PPO
    )
    ppo_target: float = param(
        6.0, "Target KL per answer, in nats, of PPO's adaptive KL controller.", gt=0, only=PPO
    )
    ppo_whiten_rewards: bool = param(False, "Whiten the rewards before computing advantages.", only=PPO)
    ref_model: str | None = param(
        None, "Reference model: a folder or hub name; null uses the initial policy.", only=REFERENCE
    )
    ref_model_adapters: str | None = param(
        None, "Adapters of the reference model, separated by commas.", only=REFERENCE
    )
    ref_model_quantization_bit: int | None = param(
        None, "Bits to quantize the reference model to: 4 or 8.", ge=4, le=8, only=REFERENCE
    )
    reward_model: str | None = param(
        None, "Reward model: a folder, a hub name, or the URL of a service.", only=PPO
    )
    reward_model_adapters: str | None = param(
        None, "Adapters to merge into the reward model, separated by commas.", only=OWN_REWARD
    )
    reward_model_quantization_bit: int | None = param(
        None, "Bits to quantize the reward model to: 4 or 8.", ge=4, le=8, only=OWN_REWARD
    )
    reward_model_type: str = param(
        "lora",
        "Kind of reward model: lora (adapter on the shared base), full (a separate model), api (HTTP service).",
        choices=("lora", "full", "api"),
        only=PPO,
    )

    @property
    def reference_free(self) -> bool:
        """Whether the preference loss needs no reference model."""
        return self.pref_loss in REFERENCE_FREE
