"""The trainer of `stage=pt` and `stage=sft`: the next token of texts and dialogues.

The loss is the mean over trained tokens of -log p(token | what stands before it): over all of an optimizer step,
so that neither padding nor the cut into batches changes it.
"""

from typing import NotRequired, TypedDict, cast

import torch
from torch import nn

from llmf_hydra.data.collate import TokenRow, make_collator
from llmf_hydra.training.batches import TrackedCollator
from llmf_hydra.training.context import RunContext, attention_of
from llmf_hydra.training.token_logprobs import IGNORED, install_head, next_tokens, token_log_probs
from llmf_hydra.training.trainer import StageTrainer


class LanguageBatch(TypedDict):
    """Sequences (batch, longest), packed or padded; a label of -100 isn't trained."""

    input_ids: torch.Tensor
    labels: torch.Tensor
    attention_mask: NotRequired[torch.Tensor]
    position_ids: NotRequired[torch.Tensor]


class LanguageTrainer(StageTrainer[LanguageBatch]):
    """Cross-entropy of the next token."""

    def __init__(self, context: RunContext):
        form = "flat" if attention_of(context.model.config).startswith("flash") else "positions"
        collate = make_collator(context.cfg.data, context.tokenizer, form, context.model.dtype)
        super().__init__(context, TrackedCollator(collate, _tokens))
        install_head(context.model, top=context.cfg.training.compute_accuracy)

    def loss_terms(self, batch: LanguageBatch) -> torch.Tensor:
        return (next_tokens(batch["labels"]) != IGNORED).sum()

    def unreduced_loss(self, model: nn.Module, batch: LanguageBatch) -> torch.Tensor:
        targets = next_tokens(batch["labels"])
        inputs = {name: cast("torch.Tensor", value) for name, value in batch.items() if name != "labels"}
        tokens = token_log_probs(model, inputs, targets)
        trained = targets != IGNORED
        if tokens.is_top is not None and not cast("nn.Module", self.model).training:
            self.note_where("accuracy", tokens.is_top, trained)
        return -tokens.log_probs[trained]


def _tokens(row: TokenRow) -> int:
    return len(row["input_ids"])
