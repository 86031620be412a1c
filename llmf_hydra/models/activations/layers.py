"""Which layers are computed again in the backward pass, where checkpoints are on: the first ones, as many as asked."""

from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer


def checkpoint_first(network: PreTrainedModel, count: int) -> None:
    """Have the network checkpoint its first `count` layers alone, once it is asked for checkpoints.

    The backward pass comes to the first layers last, when all that the others kept is free again.
    """
    original: Any = network._set_gradient_checkpointing

    def enable(enable: bool = True, **more: Any) -> None:
        original(enable=enable, **more)
        for layer in checkpointed_layers(network)[count:]:
            layer.gradient_checkpointing = False

    network._set_gradient_checkpointing = enable  # pyright: ignore[reportAttributeAccessIssue]


def checkpointed_layers(network: nn.Module) -> list[GradientCheckpointingLayer]:
    """The layers that checkpoints are made of, in the order in which they are computed."""
    return [module for module in network.modules() if isinstance(module, GradientCheckpointingLayer)]
