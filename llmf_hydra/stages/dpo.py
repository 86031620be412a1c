"""`stage=dpo`: preferences without a reward model (Rafailov et al. 2023, arXiv:2305.18290), and its kin.

The losses are in `training/losses.py`; how pairs are laid out in batches, in `training/pairs.py`.
"""

from collections.abc import Iterator
from typing import NotRequired, cast

import torch
from torch import nn

from llmf_hydra.training import losses
from llmf_hydra.training.batches import Tracked, TrackedCollator
from llmf_hydra.training.context import RunContext
from llmf_hydra.training.layout.rows import layout_of
from llmf_hydra.training.losses import Answers, Ratios, divergence
from llmf_hydra.training.pairs import AnswerBatch, PairCollator, pair_log_probs, shares_prompt
from llmf_hydra.training.reference.model import Reference, build_reference, frozen
from llmf_hydra.training.reference.trainer import ReferenceTrainer


class PairBatch(AnswerBatch):
    """Pairs in one of the layouts of `pairs.py`."""

    divergences: NotRequired[torch.Tensor]  # (2,): kto_pair's two estimates, over the whole optimizer step


class PreferenceTrainer(ReferenceTrainer[PairBatch]):
    """The losses of `rlhf.pref_loss` on pairs of a chosen and a rejected answer."""

    @property
    def rows_are_apart(self) -> bool:
        return self.context.cfg.rlhf.pref_loss != "kto_pair"  # it estimates over the batch

    def get_batch_samples(
        self, epoch_iterator: Iterator[PairBatch], num_batches: int, device: torch.device
    ) -> tuple[list[PairBatch], torch.Tensor | None]:
        batches, terms = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self.context.cfg.rlhf.pref_loss == "kto_pair" and len(batches) * self.args.world_size > 1:
            self._estimate_divergences(batches)
        return batches, terms

    def unreduced_loss(self, model: nn.Module, batch: PairBatch) -> torch.Tensor:
        # First the reference: it may switch adapters, and the policy's graph must not see that.
        referred = self._reference_log_probs(batch)
        answers = pair_log_probs(model, batch, self.context.activations)
        h = Ratios(answers.chosen - referred[:, 0], answers.rejected - referred[:, 1])
        self._note(answers, h)
        loss, rlhf = self._losses(answers, h, batch), self.context.cfg.rlhf
        return loss + rlhf.pref_ftx * losses.supervised(answers) if rlhf.pref_ftx else loss

    def _losses(self, answers: Answers, h: Ratios, batch: PairBatch) -> torch.Tensor:
        """The loss of each pair, shape (pairs,)."""
        rlhf = self.context.cfg.rlhf
        beta = rlhf.pref_beta
        match rlhf.pref_loss:
            case "sigmoid":
                return losses.sigmoid(h, beta, rlhf.dpo_label_smoothing)
            case "hinge":
                return losses.hinge(h, beta)
            case "ipo":
                return losses.ipo(h, answers, beta)
            case "kto_pair":
                z = batch["divergences"] if "divergences" in batch else _divergences(*h)
                return losses.kto_pair(h, beta, z[0], z[1])
            case "orpo":
                return losses.orpo(answers, beta)
            case "simpo":
                return losses.simpo(answers, beta, rlhf.simpo_gamma)
            case unknown:
                raise ValueError(f"no such loss: {unknown}")

    def _reference_log_probs(self, batch: PairBatch) -> torch.Tensor:
        """The reference's log-probabilities of (chosen, rejected), shape (pairs, 2); zeros where none is used."""
        if self.context.cfg.rlhf.reference_free:
            return torch.zeros(len(self.rows), 2, device=self.args.device)

        return self.reference.values(batch, self.reference_score, self.rows)

    def reference_score(self, network: nn.Module, batch: AnswerBatch) -> torch.Tensor:
        answers = pair_log_probs(network, batch, self.context.activations)
        return torch.stack([answers.chosen, answers.rejected], dim=1)

    def _estimate_divergences(self, batches: list[PairBatch]) -> None:
        """kto_pair's estimates over all batches of the step, so that they don't depend on how it is cut."""
        ratios, policy = [], cast("nn.Module", self.model)
        for batch in batches:
            self.rows = cast("Tracked", batch)["rows"]
            referred = self._reference_log_probs(batch)
            with frozen(policy), self.compute_loss_context_manager():
                answers = pair_log_probs(policy, batch, self.context.activations)
            ratios.append(torch.stack([answers.chosen, answers.rejected], dim=1) - referred)
        gathered = cast("torch.Tensor", self.accelerator.gather(torch.cat(ratios)))
        estimates = _divergences(*gathered.unbind(dim=1))
        for batch in batches:
            batch["divergences"] = estimates

    @torch.no_grad()
    def _note(self, answers: Answers, h: Ratios) -> None:
        """Log under TRL's names; without a reference the reward is beta x the mean log-probability."""
        rlhf = self.context.cfg.rlhf
        scores = (answers.chosen_mean, answers.rejected_mean) if rlhf.reference_free else h
        chosen, rejected = (rlhf.pref_beta * score for score in scores)
        self.note(
            rewards__chosen=chosen,
            rewards__rejected=rejected,
            rewards__accuracies=(chosen > rejected).float(),
            rewards__margins=chosen - rejected,
            logps__chosen=answers.chosen,
            logps__rejected=answers.rejected,
        )


def _divergences(chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
    return torch.stack([divergence(chosen), divergence(rejected)])


def build_trainer(context: RunContext) -> PreferenceTrainer:
    """The trainer; see `build_reference` for what the reference is."""
    cfg, model = context.cfg, context.model
    free = cfg.rlhf.reference_free
    reference = Reference(model, layout=layout_of(cfg, model)) if free else build_reference(context)
    collate = PairCollator(context.pad_id, shares_prompt(model, reference.layout), reference.layout)
    return PreferenceTrainer(context, TrackedCollator(collate, collate.tokens), reference)
