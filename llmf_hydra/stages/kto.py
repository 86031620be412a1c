"""`stage=kto`: answers that are marked good or bad (Ethayarajh et al. 2024, arXiv:2402.01306).

The KL term is estimated as the paper does: by the answers of other rows to this row's prompt, over all of an
optimizer step.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NotRequired, TypedDict, cast

import torch
from torch import nn

from llmf_hydra.training.batches import TrackedCollator
from llmf_hydra.training.context import RunContext
from llmf_hydra.training.layout.rows import Layout
from llmf_hydra.training.losses import divergence, kto
from llmf_hydra.training.pairs import AnswerBatch, answer_batch, answer_log_probs
from llmf_hydra.training.reference.model import Reference, build_reference, frozen
from llmf_hydra.training.reference.trainer import ReferenceTrainer


@dataclass(frozen=True)
class TokenLists:
    """Prompts and answers as lists of ids, which stay where they are when the batch moves to the device."""

    prompts: list[list[int]]
    answers: list[list[int]]


class FeedbackRow(TypedDict):
    """A tokenized answer with its label; beside it stand `source` and `row`."""

    prompt_ids: list[int]
    completion_ids: list[int]
    label: bool


class FeedbackBatch(AnswerBatch):
    """Answers, each with a prompt of its own."""

    good: torch.Tensor  # (answers,)
    lists: TokenLists  # the rows, to be mismatched
    divergence: NotRequired[torch.Tensor]  # the estimate over the whole optimizer step


@dataclass(frozen=True)
class AnswerCollator:
    """Rows of `prompt_ids`, `completion_ids`, `label` to sequences and labels."""

    pad_id: int
    layout: Layout

    def __call__(self, rows: Sequence[FeedbackRow]) -> FeedbackBatch:
        lists = TokenLists([row["prompt_ids"] for row in rows], [row["completion_ids"] for row in rows])
        good = torch.tensor([bool(row["label"]) for row in rows])
        return {**self.batch(lists.prompts, lists.answers), "good": good, "lists": lists}

    def batch(self, prompts: Sequence[list[int]], answers: Sequence[list[int]]) -> AnswerBatch:
        """A prompt and its answer per line, or all end to end."""
        return answer_batch(prompts, answers, self.pad_id, self.layout)

    def tokens(self, row: FeedbackRow) -> int:
        """The tokens of a row that the model computes."""
        return len(row["prompt_ids"]) + len(row["completion_ids"]) - 1


class FeedbackTrainer(ReferenceTrainer[FeedbackBatch]):
    """KTO, with a KL term that doesn't depend on how the optimizer step is cut into batches."""

    def __init__(self, context: RunContext, collate: AnswerCollator, reference: Reference):
        super().__init__(context, TrackedCollator(collate, collate.tokens), reference)
        self._collate = collate

    @property
    def rows_are_apart(self) -> bool:
        return False  # answers of other rows of the batch estimate the divergence

    def get_batch_samples(
        self, epoch_iterator: Iterator[FeedbackBatch], num_batches: int, device: torch.device
    ) -> tuple[list[FeedbackBatch], torch.Tensor | None]:
        batches, terms = super().get_batch_samples(epoch_iterator, num_batches, device)
        if batches:
            estimate = self._divergence([batch["lists"] for batch in batches], self._over_processes)
            for batch in batches:
                batch["divergence"] = estimate
        return batches, terms

    def unreduced_loss(self, model: nn.Module, batch: FeedbackBatch) -> torch.Tensor:
        rlhf, good, dtype = self.context.cfg.rlhf, batch["good"], self.context.activations
        z = batch["divergence"] if "divergence" in batch else self._divergence([batch["lists"]])
        referred = self.reference.values(batch, self.reference_score, self.rows).squeeze(1)
        log_probs = answer_log_probs(model, batch, dtype)
        h = log_probs - referred
        loss = kto(h, good, z, rlhf.pref_beta, (rlhf.kto_chosen_weight, rlhf.kto_rejected_weight))
        if rlhf.pref_ftx:
            tokens = torch.tensor(batch["counts"]).to(log_probs.device, non_blocking=True)
            loss = loss - rlhf.pref_ftx * torch.where(good, log_probs / tokens, 0.0)
        self._note(h.detach(), log_probs.detach(), good, z)
        return loss

    def reference_score(self, network: nn.Module, batch: AnswerBatch) -> torch.Tensor:
        return answer_log_probs(network, batch, self.context.activations).unsqueeze(1)

    def _over_processes(self, sums: torch.Tensor) -> torch.Tensor:
        return cast("torch.Tensor", self.accelerator.reduce(sums))

    def _divergence(
        self,
        lists: Sequence[TokenLists],
        total: Callable[[torch.Tensor], torch.Tensor] = lambda own: own,
    ) -> torch.Tensor:
        """`max(0, mean h)` over the prompts of the batches, each with the answer of the row before it; `total` sums
        over processes.

        A single row has no other answer: then 0.
        """
        mismatched = self._mismatched_ratios(lists)
        sums = torch.stack([mismatched.sum(), mismatched.new_tensor(float(len(mismatched)))])
        whole, count = total(sums)
        return divergence((whole / count.clamp(min=1)).unsqueeze(0))

    def _mismatched_ratios(self, lists: Sequence[TokenLists]) -> torch.Tensor:
        """`h` of each prompt with another row's answer, shape (rows,); none of a single row."""
        answers = [answer for batch in lists for answer in batch.answers]
        ratios, at = [torch.zeros(0, device=self.args.device)], 0
        if len(answers) < 2:
            return ratios[0]
        others, policy = [answers[-1], *answers[:-1]], cast("nn.Module", self.model)
        for prompts in (batch.prompts for batch in lists):
            batch = self._collate.batch(prompts, others[at : at + len(prompts)])
            at += len(prompts)
            on_device = cast("AnswerBatch", self._prepare_inputs({**batch}))
            referred = self.reference.values(
                on_device if self.context.cfg.data.streaming else batch, self.reference_score
            ).squeeze(1)
            with self.compute_loss_context_manager(), frozen(policy):
                ratios.append(answer_log_probs(policy, on_device, self.context.activations) - referred)
        return torch.cat(ratios)

    def _note(self, h: torch.Tensor, log_probs: torch.Tensor, good: torch.Tensor, z: torch.Tensor) -> None:
        rewards = self.context.cfg.rlhf.pref_beta * h
        self.note(kl=z.unsqueeze(0), rewards__accuracies=((h > z) == good).float())
        for side, where in (("chosen", good), ("rejected", ~good)):
            self.note_where(f"rewards/{side}", rewards, where)
            self.note_where(f"logps/{side}", log_probs, where)

    def means(self, prefix: str = "") -> dict[str, float]:
        means = super().means(prefix)
        chosen, rejected = (f"{prefix}rewards/{side}" for side in ("chosen", "rejected"))
        if chosen in means and rejected in means:  # of different rows: the margin is that of the means
            means[f"{prefix}rewards/margins"] = means[chosen] - means[rejected]
        return means


def build_trainer(context: RunContext) -> FeedbackTrainer:
    """The trainer; see `build_reference` for what the reference is."""
    reference = build_reference(context)
    return FeedbackTrainer(context, AnswerCollator(context.pad_id, reference.layout), reference)
