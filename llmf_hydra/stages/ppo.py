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
from llmf_hydra.training.reference.model import build_reference
from llmf_hydra.training.rewards.build import build_reward
from llmf_hydra.training.rl.collector import Collector
from llmf_hydra.training.rl.estimator import Estimator
from llmf_hydra.training.rl.experience import Judge
from llmf_hydra.training.rl.kl import AdaptiveKl
from llmf_hydra.training.rl.plan import Plan
from llmf_hydra.training.rl.ppo_trainer import PpoTrainer
from llmf_hydra.training.rl.rollouts import Sampler
from llmf_hydra.training.rl.samples import Samples


def build_trainer(context: RunContext) -> PpoTrainer:
    """The trainer. Under LoRA policy, value head, reference and a reward adapter share one base."""
    model = PolicyWithValue(context.model)
    skip_special_tokens = context.cfg.generation.skip_special_tokens
    return PpoTrainer(
        context,
        model,
        collector=_collector(context, model),
        plan=_plan(context, training_arguments(context)),
        samples=Samples(context.out, context.tokenizer, skip_special_tokens),
    )


def _collector(context: RunContext, model: PolicyWithValue) -> Collector:
    cfg = context.cfg
    reference = build_reference(context)
    how = sampling(cfg.generation, context.model, context.tokenizer, context.stops)
    chunk = cfg.training.per_device_train_batch_size
    return Collector(
        sampler=Sampler(context.model, how),
        reward=build_reward(context, reference),
        judge=Judge(model, reference, how.temperature, chunk),
        estimator=Estimator(
            AdaptiveKl(cfg.rlhf.ppo_target), cfg.rlhf.ppo_score_norm, cfg.rlhf.ppo_whiten_rewards
        ),
        tokenizer=context.tokenizer,
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
