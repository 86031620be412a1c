"""`stage=ppo`: answers are sampled, scored by a reward, and made likelier or less likely by their advantage.

Ziegler et al. 2019 (arXiv:1909.08593): the reward of a token is minus the KL penalty against the reference,
and the score on top at the last one. Advantages by GAE (arXiv:1506.02438), the update by PPO
(arXiv:1707.06347).
"""

from transformers import TrainingArguments

from llmf_hydra.models.value_head import PolicyWithValue
from llmf_hydra.training.arguments import training_arguments
from llmf_hydra.training.context import RunContext
from llmf_hydra.training.generation import sampling
from llmf_hydra.training.reference import goes_on, keep_start, reference_model
from llmf_hydra.training.rl.kl import AdaptiveKl
from llmf_hydra.training.rl.plan import Plan
from llmf_hydra.training.rl.ppo_trainer import PpoTrainer
from llmf_hydra.training.rl.rewards.build import build_reward
from llmf_hydra.training.rl.rollouts import Collector
from llmf_hydra.training.rl.samples import Samples


def build_trainer(context: RunContext) -> PpoTrainer:
    """The trainer. Under LoRA policy, value head, reference and a reward adapter share one base."""
    cfg = context.cfg
    arguments = training_arguments(context)
    reference = reference_model(context)
    if reference is None and goes_on(context):
        keep_start(context.model)
    reward, reference = build_reward(context, reference)
    if reference is not None:
        reference.to(arguments.device).requires_grad_(False)  # pyright: ignore
    model = PolicyWithValue(context.model)
    collector = Collector(
        model=model,
        reference=reference,
        reward=reward,
        sampling=sampling(cfg.generation, context.model, context.tokenizer),
        kl=AdaptiveKl(cfg.rlhf.ppo_target),
        chunk=cfg.training.per_device_train_batch_size,
        score_norm=cfg.rlhf.ppo_score_norm,
        whiten_rewards=cfg.rlhf.ppo_whiten_rewards,
    )
    return PpoTrainer(
        context,
        model,
        collector=collector,
        plan=_plan(context, arguments),
        samples=Samples(context.out, context.tokenizer, cfg.generation.skip_special_tokens),
    )


def _plan(context: RunContext, arguments: TrainingArguments) -> Plan:
    training, rlhf = context.cfg.training, context.cfg.rlhf
    return Plan(
        prompts=len(context.train),
        rows_a_batch=training.per_device_train_batch_size,
        batches_a_step=training.gradient_accumulation_steps,
        buffer_size=rlhf.ppo_buffer_size,
        passes=rlhf.ppo_epochs,
        seed=training.seed if training.data_seed is None else training.data_seed,
        shuffle=not training.disable_shuffling,
        world=arguments.world_size,
        rank=arguments.process_index,
    )
