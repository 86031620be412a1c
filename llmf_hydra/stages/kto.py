"""`stage=kto`: answers that are marked good or bad (Ethayarajh et al. 2024, arXiv:2402.01306).

The KL term is estimated as the paper does: by the answers of other rows to this row's prompt, over all of an
optimizer step.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from trl import KTOConfig, KTOTrainer

from llmf_hydra.training.context import Parts, shared_arguments, shared_pieces
from llmf_hydra.training.losses import divergence, kto
from llmf_hydra.training.pairs import lines, score_lines
from llmf_hydra.training.reference import drop_copied_adapter, frozen, reference_model
from llmf_hydra.training.reference_trainer import Referenced
from llmf_hydra.training.token_logprobs import install_head
from llmf_hydra.training.trainer import KnownRows

DIVERGENCE = "divergence"


@dataclass(frozen=True)
class AnswerCollator:
    """Rows of `prompt_ids`, `completion_ids`, `label` to lines, their labels, and the rows to be mismatched."""

    pad_id: int

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = lines(
            [r["prompt_ids"] for r in rows], [r["completion_ids"] for r in rows], self.pad_id
        )
        batch["good"] = torch.tensor([bool(row["label"]) for row in rows])
        batch["prompts"] = [torch.tensor(row["prompt_ids"]) for row in rows]
        batch["answers"] = [torch.tensor(row["completion_ids"]) for row in rows]
        return batch


class FeedbackTrainer(Referenced, KTOTrainer):
    """TRL's trainer on answers that are tokens already, with our batches and a KL term that doesn't depend on
    how the optimizer step is cut into batches."""

    def get_batch_samples(
        self, epoch_iterator: Any, num_batches: int, device: torch.device
    ) -> tuple[list, Any]:
        batches, whole = super().get_batch_samples(epoch_iterator, num_batches, device)
        if batches:
            estimate = self._divergence(batches, self.accelerator.reduce)
            for batch in batches:
                batch[DIVERGENCE] = estimate
        return batches, whole

    def losses_of(self, model: nn.Module, inputs: dict[str, Any]) -> torch.Tensor:
        rlhf, good = self.parts.cfg.rlhf, inputs["good"]
        z = inputs[DIVERGENCE] if DIVERGENCE in inputs else self._divergence([inputs])

        def compute(reference: nn.Module) -> torch.Tensor:
            return score_lines(reference, inputs, self.mask_dtype).unsqueeze(1)

        referred = self.kept_reference(compute).squeeze(1)
        log_probs = score_lines(model, inputs, self.mask_dtype)
        h = log_probs - referred
        loss = kto(h, good, z, rlhf.pref_beta, (rlhf.kto_chosen_weight, rlhf.kto_rejected_weight))
        if rlhf.pref_ftx:
            tokens = (inputs["targets"] >= 0).sum(dim=1)
            loss = loss - rlhf.pref_ftx * torch.where(good, log_probs / tokens, 0.0)
        self._note(h.detach(), log_probs.detach(), good, z)
        return loss

    def _divergence(
        self, batches: Sequence[Mapping[str, Any]], total: Callable[[torch.Tensor], Any] = lambda own: own
    ) -> torch.Tensor:
        """`max(0, mean h)` over the prompts of the batches, each with the answer of the row before it; `total` sums
        over processes.

        A single row has no other answer: then 0.
        """
        prompts = [prompt.tolist() for batch in batches for prompt in batch["prompts"]]
        answers = [answer.tolist() for batch in batches for answer in batch["answers"]]
        ratios = [self._mismatched_ratios(prompts, answers, batches)] if len(prompts) > 1 else []
        found = torch.cat(ratios) if ratios else torch.zeros(0, device=self.args.device)
        known = torch.stack([found.sum(), torch.tensor(float(len(found)), device=found.device)])
        whole, count = total(known)
        return divergence((whole / count).unsqueeze(0)) if count else whole

    def _mismatched_ratios(
        self, prompts: list[list[int]], answers: list[list[int]], batches: Sequence[Mapping[str, Any]]
    ) -> torch.Tensor:
        others, at, found = [answers[-1], *answers[:-1]], 0, []
        with self.compute_loss_context_manager():
            for size in (len(batch["prompts"]) for batch in batches):
                batch = lines(prompts[at : at + size], others[at : at + size], self.parts.pad_id)
                batch = {name: value.to(self.args.device) for name, value in batch.items()}
                with self.reference() as reference:
                    referred = score_lines(reference, batch, self.mask_dtype)
                with frozen(self.model):  # pyright: ignore
                    found.append(score_lines(self.model, batch, self.mask_dtype) - referred)  # pyright: ignore
                at += size
        return torch.cat(found)

    def _note(self, h: torch.Tensor, log_probs: torch.Tensor, good: torch.Tensor, z: torch.Tensor) -> None:
        rewards = self.parts.cfg.rlhf.pref_beta * h
        self.note(
            kl=z.unsqueeze(0),
            rewards__chosen=rewards[good],
            rewards__rejected=rewards[~good],
            rewards__accuracies=((h > z) == good).float(),
            logps__chosen=log_probs[good],
            logps__rejected=log_probs[~good],
        )

    def _means(self, prefix: str = "") -> dict[str, float]:
        means = super()._means(prefix)
        chosen, rejected = (f"{prefix}rewards/{side}" for side in ("chosen", "rejected"))
        if (
            chosen in means and rejected in means
        ):  # they are of different rows: the margin is that of the means
            means[f"{prefix}rewards/margins"] = means[chosen] - means[rejected]
        return means


def build_trainer(parts: Parts) -> FeedbackTrainer:
    """The trainer; see `reference_model` for what the reference is."""
    arguments = KTOConfig(
        **shared_arguments(parts),
        max_length=None,  # the data engine has cut the rows already
        disable_dropout=False,  # the dropout that was asked for acts; the reference has none
        loss_type="apo_zero_unpaired",  # TRL then leaves out its own KL term, which wants rows in order
    )
    trainer = FeedbackTrainer(
        **shared_pieces(parts),
        ref_model=reference_model(parts),
        args=arguments,
        data_collator=KnownRows(AnswerCollator(parts.pad_id), ("prompt_ids", "completion_ids")),
    )
    drop_copied_adapter(parts)
    for model in filter(None, [parts.model, trainer.ref_model]):
        install_head(model)  # pyright: ignore
    return trainer
