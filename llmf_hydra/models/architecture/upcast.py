"""Parts of a network in float32 while the rest computes in half precision."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from llmf_hydra.errors import Problem, Refused


class Float32Head(nn.Linear):
    """An output head that computes in float32, whatever the type of its weights and of autocast."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Logits in float32 of hidden states of any type."""
        bias = None if self.bias is None else self.bias.float()
        with torch.autocast(input.device.type, enabled=False):
            return F.linear(input.float(), self.weight.float(), bias)


def upcast_norms(model: PreTrainedModel) -> None:
    """Hold the weights of all norms in float32. What they compute is rounded once, to the type that came in."""
    for module in model.modules():
        if _is_norm(module):
            module.float()
            module.register_forward_hook(lambda _, given, output: output.to(given[0].dtype))


def upcast_head(model: PreTrainedModel) -> None:
    """Have the output head compute in float32. Raises Refused for a head that is no plain linear layer."""
    head: Any = model.get_output_embeddings()
    if type(head) is not nn.Linear:
        what = f"the output head of {type(model).__name__} is no plain linear layer"
        raise Refused([Problem("model.upcast_lmhead_output", True, what, "leave it out")])
    head.__class__ = Float32Head


def _is_norm(module: nn.Module) -> bool:
    """Whether a module is a norm by its name, with a weight of one dimension and nothing else."""
    weights = dict(module.named_parameters())
    named = "norm" in type(module).__name__.lower()
    return named and "weight" in weights and all(weight.ndim == 1 for weight in weights.values())
