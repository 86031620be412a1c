"""The trainer of `stage=pt` and `stage=sft`: the next token of texts and dialogues.

The loss is the mean over trained tokens of -log p(token | what stands before it): over all of an optimizer step,
so that neither padding nor the cut into batches changes it.
"""

from typing import NotRequired, TypedDict, cast

import torch
from torch import nn

from llmf_hydra.data.collate import TokenRow, make_collator
from llmf_hydra.models.architecture.mixture_of_depths import LOSS_WEIGHT, take_router_loss
from llmf_hydra.training.batches import TrackedCollator
from llmf_hydra.training.context import RunContext, attention_of
from llmf_hydra.training.token_logprobs import (
    IGNORED,
    TokenLogProbs,
    install_head,
    next_tokens,
    token_log_probs,
)
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
        neat = context.cfg.block_diagonal
        collate = make_collator(context.cfg.data, context.tokenizer, form, context.model.dtype, neat=neat)
        super().__init__(context, TrackedCollator(collate, _tokens))
        install_head(context.model, top=context.cfg.training.compute_accuracy)
        self._balance = context.cfg.model.moe_aux_loss_coef
        self._own_losses: list[torch.Tensor] = []

    def loss_terms(self, batch: LanguageBatch) -> torch.Tensor:
        return (next_tokens(batch["labels"]) != IGNORED).sum()

    def unreduced_loss(self, model: nn.Module, batch: LanguageBatch) -> torch.Tensor:
        targets = next_tokens(batch["labels"])
        inputs = {name: cast("torch.Tensor", value) for name, value in batch.items() if name != "labels"}
        asked = {} if self._balance is None else {"output_router_logits": True}
        tokens = token_log_probs(model, inputs, targets, **asked)
        self._own_losses = self._losses_of_network(tokens)
        trained = targets != IGNORED
        if tokens.is_top is not None and not cast("nn.Module", self.model).training:
            self.note_where("accuracy", tokens.is_top, trained)
        return -tokens.log_probs[trained]

    def network_loss(self) -> torch.Tensor | float:
        return sum(self._own_losses, 0.0)

    def _losses_of_network(self, tokens: TokenLogProbs) -> list[torch.Tensor]:
        """What the routers of experts and of depths add to the loss, weighted; noted without their weights."""
        balance, depths = tokens.aux_loss, take_router_loss(self.context.model)
        if balance is not None:
            self.note(aux_loss=balance.detach())
        if depths is not None:
            self.note(router_loss=depths.detach())
        weighted = [] if balance is None or self._balance is None else [self._balance * balance]
        return weighted if depths is None else [*weighted, LOSS_WEIGHT * depths]


def _tokens(row: TokenRow) -> int:
    return len(row["input_ids"])
