"""`stage=dpo`: preferences without a reward model (Rafailov et al. 2023, arXiv:2305.18290).

With log-ratios `h = log pi(y|x) - log ref(y|x)` of the chosen and the rejected answer and `d = h_c - h_r`:
sigmoid `-log sigmoid(beta d)`, hinge `max(0, 1 - beta d)`, ipo `(d - 1 / (2 beta))^2` per token.
"""

from typing import Any

from datasets import Dataset
from peft import PeftModel
from transformers import PreTrainedModel
from trl import DPOConfig, DPOTrainer

from llmf_hydra.models.load import load_model
from llmf_hydra.stages.parts import Parts, shared_arguments


class PretokenizedDPOTrainer(DPOTrainer):
    """TRL's trainer on rows that are tokens already: `prompt_ids`, `chosen_ids`, `rejected_ids`."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        return dataset


def build_trainer(parts: Parts) -> DPOTrainer:
    """The trainer; under LoRA the reference is the base without adapter, else a copy of the start."""
    rlhf = parts.cfg.rlhf
    arguments = DPOConfig(
        **shared_arguments(parts),
        max_length=None,  # the data engine has cut the rows already
        beta=rlhf.pref_beta,
        loss_type=[rlhf.pref_loss],
    )
    trainer = PretokenizedDPOTrainer(
        model=parts.model,
        ref_model=_reference(parts),
        args=arguments,
        train_dataset=parts.train,
        eval_dataset=parts.eval,
        processing_class=parts.tokenizer,
        callbacks=parts.callbacks,
    )
    if isinstance(parts.model, PeftModel):
        # TRL copies a given adapter as the reference. A fresh adapter changes nothing yet, so the bare base
        # is the same reference, without the copy's memory and arithmetic.
        parts.model.delete_adapter("ref")
    return trainer


def _reference(parts: Parts) -> PreTrainedModel | None:
    if isinstance(parts.model, PeftModel):
        return None
    reference = load_model(parts.cfg.model, parts.precision.weights)
    reference.load_state_dict(parts.model.state_dict())
    return reference
