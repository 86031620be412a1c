"""The hidden layers of a model."""

from torch import nn
from transformers import PreTrainedModel

from llmf_hydra.errors import Problem, Refused
from llmf_hydra.methods import vision
from llmf_hydra.methods.modules import within


def hidden_layers(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """The hidden layers of the language model, and their path. Raises Refused where they aren't a list."""
    count = model.config.get_text_config().num_hidden_layers
    seeing = vision.parts(model).towers
    for path, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count and not within(path, seeing):
            return path, module
    raise Refused(
        [Problem("method", "freeze", "finds no list of hidden layers in this model", "choose method=lora")]
    )
