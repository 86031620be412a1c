"""Scored rollouts with what policy, value head and reference say of each of their tokens."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Self

import torch

from llmf_hydra.models.value_head import PolicyWithValue
from llmf_hydra.training.generation import Rollouts
from llmf_hydra.training.layout.rows import rows_apart
from llmf_hydra.training.reference.model import Reference, frozen
from llmf_hydra.training.rl.buffer import Key, joined
from llmf_hydra.training.rl.losses import entropies, log_probs
from llmf_hydra.training.rl.passes import Spans, forward_pass
from llmf_hydra.training.rl.rollouts import Autocast

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Experience:
    """Answers with their scores and token values; `tensors` are (rows, answer), the others (rows,)."""

    tensors: Tensors  # ids, attention, mask; log_probs, values, kl, entropy in float32
    scores: torch.Tensor
    ended: torch.Tensor
    keys: list[Key]

    @property
    def kl(self) -> torch.Tensor:
        """The KL of each answer, (rows,): the sum over its tokens."""
        return (self.tensors["kl"] * self.tensors["mask"]).sum(dim=1)

    @property
    def entropy(self) -> torch.Tensor:
        """The entropy of each answer, (rows,): the sum over its tokens."""
        return (self.tensors["entropy"] * self.tensors["mask"]).sum(dim=1)

    @property
    def lengths(self) -> torch.Tensor:
        """Tokens of each answer, (rows,)."""
        return self.tensors["mask"].sum(dim=1)

    @property
    def rollouts(self) -> Rollouts:
        """The answers alone."""
        return Rollouts(self.tensors["ids"], self.tensors["attention"], self.tensors["mask"], self.ended)

    @classmethod
    def join(cls, parts: Sequence[Self], pad_id: int) -> Self:
        """Several batches as one, padded to the widest."""
        return cls(
            joined([part.tensors for part in parts], pad_id),
            torch.cat([part.scores for part in parts]),
            torch.cat([part.ended for part in parts]),
            [key for part in parts for key in part.keys],
        )


@dataclass
class Judge:
    """The models that look at finished answers, a chunk of rows at a time."""

    model: PolicyWithValue
    reference: Reference
    temperature: float  # of the policy that acts
    chunk: int  # rows per forward pass, laid out as the reference's
    autocast: Autocast = nullcontext

    def __call__(self, rollouts: Rollouts) -> Tensors:
        """`log_probs`, `values`, `entropy` and `kl` against the reference, (rows, answer) each."""
        rows = len(rollouts.ids)
        parts = [self._chunk(rollouts.rows(at, at + self.chunk)) for at in range(0, rows, self.chunk)]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    @torch.no_grad()
    def _chunk(self, rollouts: Rollouts) -> Tensors:
        spans = Spans.of(rollouts.attention, rollouts.mask)
        given = forward_pass(rollouts.ids, rollouts.attention, spans, rollouts.width, self.reference.layout)
        with frozen(self.model), self.autocast(), rows_apart(given.inputs, given.lengths):
            logits, values = self.model(given.inputs, given.predicts)
            policy = log_probs(logits, given.tokens, self.temperature)
            entropy = entropies(logits, self.temperature)
        del logits  # as large as the vocabulary
        with self.reference.model() as network, self.autocast(), rows_apart(given.inputs, given.lengths):
            logits = PolicyWithValue.logits(network, given.inputs, given.predicts)
        reference = log_probs(logits, given.tokens, self.temperature)
        found = {"log_probs": policy, "values": values, "entropy": entropy, "kl": policy - reference}
        empty = torch.zeros(rollouts.mask.shape, device=rollouts.ids.device)
        return {name: empty.masked_scatter(rollouts.mask, of_tokens) for name, of_tokens in found.items()}
