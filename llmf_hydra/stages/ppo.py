"""`stage=ppo`: answers are sampled, scored by a reward, and made likelier or less likely by their advantage.

Ziegler et al. 2019 (arXiv:1909.08593): the reward of a token is minus the KL penalty against the reference,
and the score on top at the last one. Advantages by GAE (arXiv:1506.02438), the update by PPO
(arXiv:1707.06347).
"""

import torch
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from transformers import PreTrainedModel, TrainingArguments

from llmf_hydra.models.value_head import PolicyWithValue
from llmf_hydra.training.context import Parts, shared_arguments, shared_pieces
from llmf_hydra.training.generation import sampling
from llmf_hydra.training.reference import START, goes_on, reference_model
from llmf_hydra.training.rl.kl import AdaptiveKl
from llmf_hydra.training.rl.plan import Plan
from llmf_hydra.training.rl.ppo_trainer import PpoTrainer
from llmf_hydra.training.rl.rewards.build import build_reward
from llmf_hydra.training.rl.rollouts import Collector
from llmf_hydra.training.rl.samples import Samples


def build_trainer(parts: Parts) -> PpoTrainer:
    """The trainer. Under LoRA policy, value head, reference and a reward adapter share one base."""
    cfg = parts.cfg
    arguments = TrainingArguments(**shared_arguments(parts))
    reference = reference_model(parts)
    if reference is None and goes_on(parts):
        _keep_start(parts.model)
    reward, reference = build_reward(parts, reference)
    if reference is not None:
        reference.to(arguments.device).requires_grad_(False)  # pyright: ignore
    model = PolicyWithValue(parts.model)
    collector = Collector(
        model=model,
        reference=reference,
        reward=reward,
        sampling=sampling(cfg.generation, parts.model, parts.tokenizer),
        kl=AdaptiveKl(cfg.rlhf.ppo_target),
        chunk=cfg.training.per_device_train_batch_size,
        score_norm=cfg.rlhf.ppo_score_norm,
        whiten_rewards=cfg.rlhf.ppo_whiten_rewards,
    )
    return PpoTrainer(
        **shared_pieces(parts) | {"model": model},
        collector=collector,
        plan=_plan(parts, arguments),
        samples=Samples(parts.out, parts.tokenizer, cfg.generation.skip_special_tokens),
        args=arguments,
    )


def _plan(parts: Parts, arguments: TrainingArguments) -> Plan:
    training, rlhf = parts.cfg.training, parts.cfg.rlhf
    return Plan(
        prompts=len(parts.train),
        rows_a_batch=training.per_device_train_batch_size,
        batches_a_step=training.gradient_accumulation_steps,
        buffer_size=rlhf.ppo_buffer_size,
        passes=rlhf.ppo_epochs,
        seed=training.seed if training.data_seed is None else training.data_seed,
        shuffle=not training.disable_shuffling,
        world=arguments.world_size,
        rank=arguments.process_index,
    )


@torch.no_grad()
def _keep_start(policy: PreTrainedModel) -> None:
    """Keep a frozen copy of the adapter that the run goes on from: it is the reference then."""
    assert isinstance(policy, PeftModel)
    active = str(policy.active_adapter)
    policy.add_adapter(START, policy.peft_config[active])
    start = {
        name: weight.clone()
        for name, weight in get_peft_model_state_dict(policy, adapter_name=active).items()
    }
    set_peft_model_state_dict(policy, start, adapter_name=START)
    policy.set_adapter(active)
