"""The trainer of `stage=pt` and `stage=sft`: the next token of texts and dialogues.

The loss is the mean over trained tokens of -log p(token | what stands before it): over all of an optimizer step,
so that neither padding nor the cut into batches changes it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NotRequired, TypedDict, cast

import torch
from torch import nn

from llmf_hydra.data.collate import Collator, TokenRow, make_collator
from llmf_hydra.models.architecture.mixture_of_depths import LOSS_WEIGHT, take_router_loss
from llmf_hydra.training.batches import TrackedCollator
from llmf_hydra.training.context import RunContext
from llmf_hydra.training.layout.rows import Layout, apart, layout_of, model_inputs
from llmf_hydra.training.token_logprobs import (
    TokenLogProbs,
    install_head,
    next_tokens,
    places,
    token_log_probs,
)
from llmf_hydra.training.trainer import StageTrainer


class LanguageBatch(TypedDict):
    """Sequences (batch, longest), packed or padded, or all rows in one line (1, tokens); a label of -100 isn't
    trained."""

    input_ids: torch.Tensor
    labels: torch.Tensor
    trained: torch.Tensor  # (n,): the places of the trained targets in the flattened batch
    attention_mask: NotRequired[torch.Tensor]
    position_ids: NotRequired[torch.Tensor]
    lengths: NotRequired[tuple[int, ...]]  # of the rows of one line


@dataclass(frozen=True)
class LanguageCollator:
    """Rows to a batch, with the places of what is trained; `by_row` adds the borders of rows that lie in one line."""

    collate: Collator
    by_row: bool

    def __call__(self, rows: Sequence[TokenRow]) -> LanguageBatch:
        batch = cast("LanguageBatch", self.collate(rows))
        batch["trained"] = places(next_tokens(batch["labels"]))
        if self.by_row:
            batch["attention_mask"] = torch.ones_like(batch["input_ids"])
            batch["lengths"] = self.collate.lengths(rows)
        return batch


class LanguageTrainer(StageTrainer[LanguageBatch]):
    """Cross-entropy of the next token."""

    def __init__(self, context: RunContext):
        data = context.cfg.data
        layout = layout_of(context.cfg, context.model)
        if layout.line and not data.ignore_pad_token_for_loss:
            layout = Layout("it is trained (data.ignore_pad_token_for_loss=false)")
        form, neat = "flat" if layout.line else "positions", context.cfg.block_diagonal
        collate = make_collator(data, context.tokenizer, form, context.model.dtype, neat=neat)
        super().__init__(context, TrackedCollator(LanguageCollator(collate, layout.by_row), _tokens), layout)
        install_head(context.model, top=context.cfg.training.compute_accuracy)
        self._balance = context.cfg.model.moe_aux_loss_coef
        self._own_losses: list[torch.Tensor] = []

    def loss_terms(self, batch: LanguageBatch) -> torch.Tensor:
        return torch.tensor(len(batch["trained"]))

    def unreduced_loss(self, model: nn.Module, batch: LanguageBatch) -> torch.Tensor:
        asked = {} if self._balance is None else {"output_router_logits": True}
        with apart(batch):
            tokens = token_log_probs(
                model, model_inputs(batch), next_tokens(batch["labels"]), batch["trained"], **asked
            )
        self._own_losses = self._losses_of_network(tokens)
        if tokens.is_top is not None and not cast("nn.Module", self.model).training:
            self.note(accuracy=tokens.is_top.flatten()[batch["trained"]].float())
        return -tokens.log_probs.flatten()[batch["trained"]]

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
