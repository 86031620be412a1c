"""Group `rlhf`: preference losses, PPO, reference and reward models (spec table rlhf)."""

from dataclasses import dataclass

from llmf_hydra.config.param import param

DPO = {"stage.name": ("dpo",)}
KTO = {"stage.name": ("kto",)}
PPO = {"stage.name": ("ppo",)}
PREFERENCE = {"stage.name": ("dpo", "kto")}
REFERENCE = {"stage.name": ("dpo", "kto", "ppo")}


@dataclass
class Rlhf:
    pref_beta: float = param(
        0.1, "Strength of the pull to the reference model in the preference loss.", gt=0, only=PREFERENCE
    )
    pref_ftx: float = param(
        0.0, "Weight of the supervised loss on the chosen answer.", ge=0, only=PREFERENCE, planned=True
    )
    pref_loss: str = param(
        "sigmoid",
        "Preference loss: sigmoid (DPO), hinge (SLiC), ipo, kto_pair, orpo, simpo.",
        choices=("sigmoid", "hinge", "ipo", "kto_pair", "orpo", "simpo"),
        planned_choices=("kto_pair", "orpo", "simpo"),
        only=DPO,
    )
    dpo_label_smoothing: float = param(
        0.0,
        "Probability that a label is wrong (conservative DPO).",
        ge=0,
        le=0.5,
        only={**DPO, "rlhf.pref_loss": ("sigmoid",)},
        planned=True,
    )
    simpo_gamma: float = param(
        0.5,
        "Reward margin of SimPO (arXiv:2405.14734).",
        ge=0,
        only={**DPO, "rlhf.pref_loss": ("simpo",)},
        planned=True,
    )
    kto_chosen_weight: float = param(1.0, "Weight of KTO's loss on good answers.", ge=0, only=KTO, planned=True)
    kto_rejected_weight: float = param(1.0, "Weight of KTO's loss on bad answers.", ge=0, only=KTO, planned=True)
    ppo_buffer_size: int = param(1, "Rollout batches that PPO collects before an update.", ge=1, only=PPO, planned=True)
    ppo_epochs: int = param(4, "Passes of PPO over each buffer.", ge=1, only=PPO, planned=True)
    ppo_score_norm: bool = param(
        False, "Normalise the scores of the reward model by running moments.", only=PPO, planned=True
    )
    ppo_target: float = param(6.0, "Target KL of PPO's adaptive controller.", gt=0, only=PPO, planned=True)
    ppo_whiten_rewards: bool = param(
        False, "Whiten the rewards before the advantages are computed.", only=PPO, planned=True
    )
    ref_model: str | None = param(
        None, "Reference model: a path or a hub name; null takes the start of the run.", only=REFERENCE, planned=True
    )
    ref_model_adapters: str | None = param(
        None, "Adapters of the reference model, separated by commas.", only=REFERENCE, planned=True
    )
    ref_model_quantization_bit: int | None = param(
        None, "Bits the reference model is quantized to: 4 or 8.", ge=4, le=8, only=REFERENCE, planned=True
    )
    reward_model: str | None = param(
        None, "Reward model: a path, a hub name, or the URL of a service.", only=PPO, planned=True
    )
    reward_model_adapters: str | None = param(
        None, "Adapters of the reward model, separated by commas.", only=PPO, planned=True
    )
    reward_model_quantization_bit: int | None = param(
        None, "Bits the reward model is quantized to: 4 or 8.", ge=4, le=8, only=PPO, planned=True
    )
    reward_model_type: str = param(
        "lora",
        "How the reward comes: lora (adapter on the shared base), full (a model of its own), api (HTTP).",
        choices=("lora", "full", "api"),
        only=PPO,
        planned=True,
    )
