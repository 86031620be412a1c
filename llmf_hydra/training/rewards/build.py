"""The reward of a run of PPO: the list `rlhf.rewards`, or one of three, by `reward_model_type`."""

from peft import PeftModel

from llmf_hydra.models.load import load_model
from llmf_hydra.models.sources.hubs import adapter_folder
from llmf_hydra.training.context import RunContext
from llmf_hydra.training.reference.model import Reference
from llmf_hydra.training.rewards.adapter import AdapterReward
from llmf_hydra.training.rewards.listed import WeightedRewards
from llmf_hydra.training.rewards.model import ModelReward
from llmf_hydra.training.rewards.protocol import Reward
from llmf_hydra.training.rewards.service import ServiceReward


def build_reward(context: RunContext, reference: Reference) -> Reward:
    """The reward; its adapter may sit on the reference's model. Raises Refused.

    A reward adapter sits on the weights that are in memory anyway: the policy's own base under LoRA, else the
    reference's. A model of its own is loaded only where `ref_model` has taken the reference's place.
    """
    cfg, tokenizer = context.cfg, context.tokenizer
    if cfg.rlhf.rewards:
        return WeightedRewards(context)
    rlhf, name, weights = cfg.rlhf, str(cfg.rlhf.reward_model), context.precision.weights
    if rlhf.reward_model_type == "api":
        return ServiceReward(name, tokenizer, cfg.generation.skip_special_tokens)
    if rlhf.reward_model_type == "full":
        return ModelReward.load(cfg, weights, tokenizer)
    name = adapter_folder(name, cfg.model, "rlhf.reward_model")
    if isinstance(context.model, PeftModel):
        return AdapterReward(context.model, name, context.pad_id)
    if reference.own is None or rlhf.ref_model or rlhf.ref_model_adapters or rlhf.ref_model_quantization_bit:
        return AdapterReward(load_model(cfg.network, weights), name, context.pad_id)
    reward = AdapterReward(reference.own, name, context.pad_id)  # pyright: ignore[reportArgumentType]  # not placed yet
    reference.host(reward.host)
    return reward
