"""Where the score of an answer comes from: one of three, by `reward_model_type`."""

from typing import Protocol

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from llmf_hydra.models.load import load_model
from llmf_hydra.training.context import RunContext
from llmf_hydra.training.generation import Rollouts
from llmf_hydra.training.rl.rewards.adapter import AdapterReward
from llmf_hydra.training.rl.rewards.model import ModelReward
from llmf_hydra.training.rl.rewards.service import ServiceReward


class Reward(Protocol):
    """Scores answers."""

    def __call__(self, rollouts: Rollouts) -> torch.Tensor:
        """A score for each row, (rows,) in float32 on the rollouts' device."""
        ...


def build_reward(
    context: RunContext, reference: PreTrainedModel | None
) -> tuple[Reward, PreTrainedModel | None]:
    """The reward, and the reference model, which may have got the reward's adapter. Raises Refused.

    A reward adapter sits on the weights that are in memory anyway: the policy's own base under LoRA, else the
    reference's. A model of its own is loaded only where `ref_model` has taken the reference's place.
    """
    rlhf, tokenizer = context.cfg.rlhf, context.tokenizer
    name = str(rlhf.reward_model)
    if rlhf.reward_model_type == "api":
        return ServiceReward(name, tokenizer, context.cfg.generation.skip_special_tokens), reference
    if rlhf.reward_model_type == "full":
        return ModelReward.load(context.cfg, context.precision.weights, tokenizer), reference
    pad_id = int(tokenizer.pad_token_id)  # pyright: ignore  # load_tokenizer has seen to it
    if isinstance(context.model, PeftModel):
        return AdapterReward(context.model, name, pad_id), reference
    if reference is None or rlhf.ref_model or rlhf.ref_model_adapters or rlhf.ref_model_quantization_bit:
        return AdapterReward(
            load_model(context.cfg.model, context.precision.weights), name, pad_id
        ), reference
    reward = AdapterReward(reference, name, pad_id)
    return reward, reward.host  # pyright: ignore[reportReturnType]  # a PeftModel is as good
