"""Activation checkpoints in CPU memory, as unsloth keeps them."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.autograd.graph import save_on_cpu
from transformers import PreTrainedModel

Checkpoint = Callable[..., Any]


def offload_checkpoints(network: PreTrainedModel) -> None:
    """Have the network hold what its reentrant checkpoints save in CPU memory, once it is asked for checkpoints.

    The inputs of each layer go there in the forward pass and come back for the backward pass, unchanged. On a CPU they
    are there. (Transformers' own `offload` asks for pinned memory, which a machine without an accelerator hasn't.)
    """
    original: Callable[..., None] = network._set_gradient_checkpointing

    def enable(*, gradient_checkpointing_func: Checkpoint, **more: Any) -> None:
        original(
            gradient_checkpointing_func=functools.partial(_offloaded, gradient_checkpointing_func), **more
        )

    network._set_gradient_checkpointing = enable  # pyright: ignore[reportAttributeAccessIssue]


def _offloaded(checkpoint: Checkpoint, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    with save_on_cpu(pin_memory=torch.cuda.is_available()):
        return checkpoint(function, *args, **kwargs)
