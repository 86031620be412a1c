"""Has a network keep less for its backward pass."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import chain
from typing import Any, TypeVar

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from llmf_hydra.models.activations.recompute import Recomputed
from llmf_hydra.models.network import Network

AnyNetwork = TypeVar("AnyNetwork", bound=Network)
_within: list[
    tuple[nn.Module, Recomputed]
] = []  # forward passes in progress, of this process's one thread that trains

_keeps_all: ContextVar[bool] = ContextVar("keeps_all", default=False)


def keep_less(model: AnyNetwork) -> AnyNetwork:
    """The model, whose trunk recomputes elementwise results from now on where it trains; see `recompute`.

    A copy of the model does the same. What follows the trunk, its head and the loss, is left alone.
    """
    trunk = base_of(model).base_model
    trunk.register_forward_pre_hook(_enter)
    trunk.register_forward_hook(_leave, always_call=True)
    return model


@contextmanager
def keeping_all() -> Iterator[None]:
    """Within it nothing is recomputed."""
    token = _keeps_all.set(True)
    try:
        yield
    finally:
        _keeps_all.reset(token)


def base_of(model: Network) -> PreTrainedModel:
    """The network under its adapters."""
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    return base


def _enter(trunk: nn.Module, _: object) -> None:
    if trunk.training and torch.is_grad_enabled() and not _within and not _keeps_all.get():
        mode = Recomputed(lambda: _lasting(trunk))
        mode.__enter__()
        _within.append((trunk, mode))


def _leave(trunk: nn.Module, _: object, __: object) -> None:
    if _within and _within[-1][0] is trunk:
        _within.pop()[1].__exit__(None, None, None)


def _lasting(trunk: nn.Module) -> Iterator[torch.Tensor]:
    return chain(trunk.parameters(), trunk.buffers())
