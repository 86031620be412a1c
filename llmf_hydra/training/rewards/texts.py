"""Rollouts as text, for services and for people."""

import torch
from transformers import PreTrainedTokenizerBase

from llmf_hydra.training.generation import Rollouts


def texts(
    rollouts: Rollouts, tokenizer: PreTrainedTokenizerBase, skip_special_tokens: bool
) -> tuple[list[str], list[str]]:
    """Prompts as the model read them, and answers, with or without special tokens."""

    def decoded(ids: torch.Tensor, kept: torch.Tensor, skip: bool) -> str:
        return str(tokenizer.decode(ids[kept].tolist(), skip_special_tokens=skip))

    split = rollouts.ids.shape[1] - rollouts.width
    prompts = [
        decoded(ids[:split], kept[:split].bool(), False)
        for ids, kept in zip(rollouts.ids, rollouts.attention, strict=True)
    ]
    answers = zip(rollouts.answers, rollouts.mask, strict=True)
    return prompts, [decoded(ids, kept, skip_special_tokens) for ids, kept in answers]
