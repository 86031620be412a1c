"""`method=full`: every weight is trained; of a model that sees, those that its switches leave."""

from transformers import PreTrainedModel

from llmf_hydra.config.groups.method import MethodConfig
from llmf_hydra.methods import vision


def apply(model: PreTrainedModel, method: MethodConfig, *, pure: bool) -> PreTrainedModel:
    """The model itself, trainable. Raises Refused for switches of models that see on one that doesn't."""
    vision.check(model, method)
    model.requires_grad_(True)
    if method.train_mm_proj_only:
        vision.train_projector_only(model)
    else:
        vision.set_trained(model, method)
    return model
