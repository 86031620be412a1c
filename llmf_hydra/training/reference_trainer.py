"""The base of the stages whose loss compares the policy with a reference (`stage=dpo`, `stage=kto`)."""

from collections.abc import Callable
from typing import Any

from llmf_hydra.training.context import RunContext
from llmf_hydra.training.reference import Reference
from llmf_hydra.training.token_logprobs import install_head
from llmf_hydra.training.trainer import Batch, StageTrainer


class ReferenceTrainer(StageTrainer[Batch]):
    """Holds the reference, and has its cache saved with each checkpoint."""

    def __init__(self, context: RunContext, collator: Callable[[Any], Any], reference: Reference):
        super().__init__(context, collator)
        self.reference = reference
        reference.place(self.accelerator)
        self.checkpoint.register("reference", reference)
        install_head(context.model)
        if reference.own is not None:
            install_head(reference.own)
