"""`stage=dpo`: preferences without a reward model (Rafailov et al. 2023, arXiv:2305.18290), and its kin.

The losses are in `preference_losses.py`; how pairs are laid out in batches, in `pairs.py`.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from trl import DPOConfig, DPOTrainer

from llmf_hydra.training import losses
from llmf_hydra.training.context import Parts, shared_arguments, shared_pieces
from llmf_hydra.training.losses import Answers, Ratios, divergence
from llmf_hydra.training.pairs import PairCollator, score_pairs, shares_prompt
from llmf_hydra.training.reference import NoReference, drop_copied_adapter, frozen, reference_model
from llmf_hydra.training.reference_trainer import Referenced
from llmf_hydra.training.token_logprobs import install_head
from llmf_hydra.training.trainer import KnownRows

DIVERGENCES = "divergences"  # kto_pair's two estimates, over the whole optimizer step


class PreferenceTrainer(Referenced, DPOTrainer):
    """TRL's trainer on pairs that are tokens already, with our batches and losses."""

    def get_batch_samples(
        self, epoch_iterator: Any, num_batches: int, device: torch.device
    ) -> tuple[list, Any]:
        batches, whole = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self.parts.cfg.rlhf.pref_loss == "kto_pair" and len(batches) * self.args.world_size > 1:
            self._estimate_divergences(batches)
        return batches, whole

    def losses_of(self, model: nn.Module, inputs: dict[str, Any]) -> torch.Tensor:
        referred = self._referred(
            inputs
        )  # first: it may switch adapters, and the policy's graph must not see that
        answers = score_pairs(model, inputs, self.mask_dtype)
        h = Ratios(answers.chosen - referred[:, 0], answers.rejected - referred[:, 1])
        loss = self._losses(answers, h, inputs)
        self._note(answers, h)
        return loss

    def _losses(self, answers: Answers, h: Ratios, batch: Mapping[str, Any]) -> torch.Tensor:
        """The loss of each pair, shape (pairs,)."""
        rlhf = self.parts.cfg.rlhf
        match rlhf.pref_loss:
            case "sigmoid":
                loss = losses.sigmoid(h, rlhf.pref_beta, rlhf.dpo_label_smoothing)
            case "hinge":
                loss = losses.hinge(h, rlhf.pref_beta)
            case "ipo":
                loss = losses.ipo(h, answers, rlhf.pref_beta)
            case "kto_pair":
                z = (
                    batch[DIVERGENCES]
                    if DIVERGENCES in batch
                    else torch.stack([divergence(part) for part in h])
                )
                loss = losses.kto_pair(h, rlhf.pref_beta, z[0], z[1])
            case "orpo":
                loss = losses.orpo(answers, rlhf.pref_beta)
            case "simpo":
                loss = losses.simpo(answers, rlhf.pref_beta, rlhf.simpo_gamma)
            case unknown:
                raise ValueError(f"no such loss: {unknown}")
        return loss + rlhf.pref_ftx * losses.supervised(answers) if rlhf.pref_ftx else loss

    def _referred(self, batch: Mapping[str, Any]) -> torch.Tensor:
        """The reference's log-probabilities of (chosen, rejected), shape (pairs, 2); zeros where none is used."""
        if self.parts.cfg.rlhf.reference_free:
            return torch.zeros(len(self.rows), 2, device=self.args.device)

        def compute(reference: nn.Module) -> torch.Tensor:
            answers = score_pairs(reference, batch, self.mask_dtype)
            return torch.stack([answers.chosen, answers.rejected], dim=1)

        return self.kept_reference(compute)

    def _estimate_divergences(self, batches: list[dict[str, Any]]) -> None:
        """kto_pair's estimates over all batches of the step, so that they don't depend on how it is cut."""
        ratios = []
        for batch in batches:
            self.rows = batch["rows"]
            referred = self._referred(batch)
            with frozen(self.model), self.compute_loss_context_manager():  # pyright: ignore
                answers = score_pairs(self.model, batch, self.mask_dtype)  # pyright: ignore
            ratios.append(torch.stack([answers.chosen, answers.rejected], dim=1) - referred)
        all_ratios: Any = self.accelerator.gather(torch.cat(ratios))
        estimates = torch.stack([divergence(part) for part in all_ratios.unbind(dim=1)])
        for batch in batches:
            batch[DIVERGENCES] = estimates

    @torch.no_grad()
    def _note(self, answers: Answers, h: Ratios) -> None:
        """Log under TRL's names; without a reference the reward is beta x the mean log-probability."""
        rlhf = self.parts.cfg.rlhf
        free = rlhf.reference_free
        scores = (answers.chosen_mean, answers.rejected_mean) if free else h
        chosen, rejected = (rlhf.pref_beta * score for score in scores)
        self.note(
            rewards__chosen=chosen,
            rewards__rejected=rejected,
            rewards__accuracies=(chosen > rejected).float(),
            rewards__margins=chosen - rejected,
            logps__chosen=answers.chosen,
            logps__rejected=answers.rejected,
        )


def build_trainer(parts: Parts) -> PreferenceTrainer:
    """The trainer; see `reference_model` for what the reference is."""
    free = parts.cfg.rlhf.reference_free
    arguments = DPOConfig(
        **shared_arguments(parts),
        max_length=None,  # the data engine has cut the rows already
        disable_dropout=False,  # the dropout that was asked for acts; the reference has none
    )
    collate = PairCollator(parts.pad_id, shares_prompt(parts.model))
    reference: Any = NoReference(parts.model.config) if free else reference_model(parts)
    trainer = PreferenceTrainer(
        **shared_pieces(parts),
        ref_model=reference,
        args=arguments,
        data_collator=KnownRows(collate, ("prompt_ids", "chosen_ids", "prompt_ids", "rejected_ids")),
    )
    drop_copied_adapter(parts)
    for model in filter(None, [parts.model, trainer.ref_model]):
        install_head(model)  # pyright: ignore
    return trainer
