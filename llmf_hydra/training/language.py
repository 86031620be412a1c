"""The trainer of `stage=pt` and `stage=sft`: the next token of texts and dialogues.

The loss is the mean over trained tokens of -log p(token | what stands before it): over all of an optimizer step,
so that neither padding nor the cut into batches changes it.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from trl import SFTConfig, SFTTrainer

from llmf_hydra.data.collate import make_collator
from llmf_hydra.training.context import Parts, attention_of, shared_arguments, shared_pieces
from llmf_hydra.training.token_logprobs import IGNORED, install_head, next_tokens, score
from llmf_hydra.training.trainer import KnownRows, Watched


class LanguageTrainer(Watched, SFTTrainer):
    """TRL's trainer on batches of `input_ids` and `labels` (-100: not trained), packed or padded."""

    def weight(self, batch: Mapping[str, Any]) -> torch.Tensor:
        return (next_tokens(batch["labels"]) != IGNORED).sum()

    def losses_of(self, model: nn.Module, inputs: dict[str, Any]) -> torch.Tensor:
        targets = next_tokens(inputs["labels"])
        scored = score(model, {key: value for key, value in inputs.items() if key != "labels"}, targets)
        trained = targets != IGNORED
        if self.parts.cfg.training.compute_accuracy and not self.model.training:  # pyright: ignore
            self.note(accuracy=scored.is_top[trained])
        return -scored.log_probs[trained]


def build_trainer(parts: Parts, trainer: type[LanguageTrainer] = LanguageTrainer) -> LanguageTrainer:
    """A trainer on rows of `input_ids` and `labels`."""
    arguments = SFTConfig(
        **shared_arguments(parts),
        max_length=None,  # the data engine has cut the rows already
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    form = "flat" if attention_of(parts.model.config).startswith("flash") else "positions"
    collate = make_collator(parts.cfg.data, parts.tokenizer, form, parts.model.dtype)
    built = trainer(
        **shared_pieces(parts),
        args=arguments,
        data_collator=KnownRows(collate, ("input_ids",)),
    )
    install_head(parts.model)
    return built
