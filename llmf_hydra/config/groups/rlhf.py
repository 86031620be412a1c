"""Group `rlhf`: preference losses, PPO, GRPO and its kin, reference and rewards (spec table rlhf).

The parameters of `stage=grpo` and the list of rewards are beyond the table; those of the stage have TRL's names.
"""

from dataclasses import dataclass
from typing import Any

from llmf_hydra.config.choices import stages
from llmf_hydra.config.param import param
from llmf_hydra.config.rewards.items import RewardSpec, specs

DPO = {"stage.name": stages(lambda stage: stage.several_losses)}
KTO = {"stage.name": ("kto",)}
PPO = {"stage.name": ("ppo",)}
PREFERENCE = {"stage.name": stages(lambda stage: stage.preference)}
REFERENCE = {"stage.name": stages(lambda stage: stage.reference)}
OWN_REWARD = {**PPO, "rlhf.reward_model_type": ("full",)}
GRPO = {"stage.name": ("grpo",)}
ROLLOUTS = {"stage.name": stages(lambda stage: stage.rollouts)}
CLIPPED = ("grpo", "dr_grpo", "dapo", "bnpo", "luspo")  # losses that clip the ratio on both sides
LOSSES = (*CLIPPED, "cispo", "rloo")
RATIOS = {**GRPO, "rlhf.loss_type": (*CLIPPED, "rloo")}
TOKENS = {**GRPO, "rlhf.loss_type": (*CLIPPED, "cispo")}  # TRL's GRPOTrainer; rloo is its RLOOTrainer
RLOO = {**GRPO, "rlhf.loss_type": ("rloo",)}
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

    rewards: Any = param(
        None,
        "Rewards of online training, a list: KIND, KIND:ARGUMENT or {kind: KIND, weight: 0.5, ...}; see docs/grpo.md.",
        shown_type="str or list or null",
        only=ROLLOUTS,
    )
    reward_timeout: float = param(
        60.0, "Seconds that one reward may take for a batch of answers.", gt=0, only=ROLLOUTS
    )
    loss_type: str = param(
        "dapo",
        "Loss of stage=grpo: grpo, dr_grpo, dapo, bnpo, luspo, cispo (TRL's GRPOTrainer), rloo (its RLOOTrainer).",
        choices=LOSSES,
        only=GRPO,
    )
    num_generations: int = param(8, "Answers per prompt, whose rewards are compared.", ge=2, only=GRPO)
    num_generations_eval: int | None = param(
        None, "Answers per prompt at evaluation; null takes num_generations.", ge=1, only=GRPO
    )
    steps_per_generation: int | None = param(
        None,
        "Micro-batches that are answered at once; null takes gradient_accumulation_steps.",
        ge=1,
        only=GRPO,
    )
    num_iterations: int = param(1, "Times that each answer is trained on.", ge=1, only=GRPO)
    beta: float = param(0.0, "Coefficient of the KL to the reference; 0 loads no reference.", ge=0, only=GRPO)
    use_bias_correction_kl: bool = param(
        True, "Weight the KL of a token by its importance ratio.", only=TOKENS
    )
    epsilon: float = param(0.2, "Lower clipping range of the ratio.", ge=0, le=1, only=RATIOS)
    epsilon_high: float | None = param(
        None, "Upper clipping range; null takes epsilon. Of cispo the largest ratio itself.", ge=0, only=GRPO
    )
    delta: float | None = param(
        None,
        "Upper bound of the unclipped ratio, against steps that grow without limit (arXiv:2505.07291).",
        gt=1,
        only={**GRPO, "rlhf.loss_type": CLIPPED},
    )
    importance_sampling_level: str = param(
        "token",
        "What a ratio is of: each token, or the whole sequence (GSPO, arXiv:2507.18071).",
        choices=("token", "sequence"),
        only=TOKENS,
    )
    scale_rewards: str = param(
        "group",
        "Deviation that advantages are divided by: of the group, of the batch, or none (Dr. GRPO).",
        choices=("group", "batch", "none"),
        only=TOKENS,
    )
    multi_objective_aggregation: str = param(
        "sum_then_normalize",
        "Whether several rewards are added before they are normalized, or after (GDPO).",
        choices=("sum_then_normalize", "normalize_then_sum"),
        only=TOKENS,
    )
    normalize_advantages: bool = param(False, "Normalize advantages over the generation batch.", only=RLOO)
    mask_truncated_completions: bool = param(
        False, "Leave answers that didn't end out of the loss.", only=GRPO
    )
    top_entropy_quantile: float = param(
        1.0, "Share of tokens, those of the highest entropy, that are trained.", gt=0, le=1, only=TOKENS
    )
    entropy_coef: float = param(0.0, "Coefficient of the entropy bonus.", ge=0, only=TOKENS)
    pass_reward: float = param(
        1.0, "Reward from which on an answer passes, for pass@k at evaluation.", only=GRPO
    )

    @property
    def listed(self) -> list[RewardSpec]:
        """The rewards of the list, which must have been checked."""
        return specs(self.rewards)

    @property
    def answers_per_prompt(self) -> int:
        """Those of an evaluation."""
        return self.num_generations_eval or self.num_generations

    @property
    def reference_free(self) -> bool:
        """Whether the preference loss needs no reference model."""
        return self.pref_loss in REFERENCE_FREE
