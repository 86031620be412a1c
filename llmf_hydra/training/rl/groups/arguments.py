"""A run's config as the arguments of TRL's GRPOTrainer and RLOOTrainer."""

from typing import Any

from trl import GRPOConfig, RLOOConfig

from llmf_hydra.models.architecture.mixture_of_depths import is_converted
from llmf_hydra.training.arguments import training_arguments
from llmf_hydra.training.context import RunContext


def grpo_arguments(context: RunContext) -> GRPOConfig:
    """The arguments of the losses that look at tokens."""
    rlhf = context.cfg.rlhf
    return training_arguments(
        context,
        GRPOConfig,
        **_shared(context),
        loss_type=rlhf.loss_type,
        delta=rlhf.delta,
        importance_sampling_level=rlhf.importance_sampling_level,
        scale_rewards=rlhf.scale_rewards,
        multi_objective_aggregation=rlhf.multi_objective_aggregation,
        use_bias_correction_kl=rlhf.use_bias_correction_kl,
        top_entropy_quantile=rlhf.top_entropy_quantile,
        entropy_coef=rlhf.entropy_coef,
    )


def rloo_arguments(context: RunContext) -> RLOOConfig:
    """The arguments of the loss that looks at whole answers."""
    own = {"normalize_advantages": context.cfg.rlhf.normalize_advantages}
    return training_arguments(context, RLOOConfig, **_shared(context), **own)


def _shared(context: RunContext) -> dict[str, Any]:
    """What both take. `beta` is left at 0 here: TRL would load the reference anew, and ours is put in its place."""
    rlhf, generation = context.cfg.rlhf, context.cfg.generation
    return {
        "beta": 0.0,
        "num_generations": rlhf.num_generations,
        "num_generations_eval": rlhf.num_generations_eval,
        "steps_per_generation": rlhf.steps_per_generation,
        "num_iterations": rlhf.num_iterations,
        "epsilon": rlhf.epsilon,
        "epsilon_high": rlhf.epsilon_high,
        "mask_truncated_completions": rlhf.mask_truncated_completions,
        "reward_weights": [reward.weight for reward in rlhf.listed],
        "shuffle_dataset": not context.cfg.training.disable_shuffling,
        "max_completion_length": generation.max_new_tokens,
        "temperature": generation.temperature,
        "top_p": generation.top_p,
        "top_k": generation.top_k,
        "repetition_penalty": generation.repetition_penalty,
        "use_vllm": generation.backend == "vllm",
        "generation_kwargs": {"use_cache": False} if is_converted(context.model.config) else None,
    }
