"""`method=full`: every weight is trained."""

from transformers import PreTrainedModel

from llmf_hydra.config.groups.method import MethodConfig


def apply(model: PreTrainedModel, method: MethodConfig, *, pure: bool) -> PreTrainedModel:
    """The model itself, with every weight trainable."""
    return model.requires_grad_(True)
