"""The log-probabilities of targets under logits, with one chunk of them in float32 at a time.

The simple version is `log_softmax(logits.float()).gather(targets)`, which holds the logits in float32, their
log-softmax and its gradient, each as large as the vocabulary times the targets. Here the logits are kept; every other
tensor is as large as a chunk. A row's numbers don't depend on other rows, so they are the same in every bit.
"""

from typing import Any, NamedTuple, cast

import torch
from torch.nn import functional as F

CHUNK = 2**22  # logits, 16 MiB of them


class Targets(NamedTuple):
    """Of each target, shape (n,)."""

    log_probs: torch.Tensor  # float32
    is_top: torch.Tensor | None  # whether it is the likeliest


def target_log_probs(logits: torch.Tensor, targets: torch.Tensor, *, top: bool = False) -> Targets:
    """Log-probabilities of `targets` (n,) under `logits` (n, vocabulary) of any type; `top` asks for `is_top` too."""
    log_probs, is_top = cast("tuple[torch.Tensor, torch.Tensor]", _TargetLogProbs.apply(logits, targets, top))
    return Targets(log_probs, is_top if top else None)


class _TargetLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: torch.Tensor, targets: torch.Tensor, top: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.save_for_backward(logits, targets)
        log_probs = logits.new_empty(len(targets), dtype=torch.float32)
        is_top = targets.new_empty(len(targets) if top else 0, dtype=torch.bool)
        rows = _rows(logits)
        for start in range(0, len(targets), rows):
            part, aims = logits[start : start + rows].float(), targets[start : start + rows]
            log_probs[start : start + rows] = F.log_softmax(part, dim=-1).gather(1, aims[:, None]).squeeze(1)
            if top:
                is_top[start : start + rows] = part.argmax(dim=-1) == aims
        ctx.mark_non_differentiable(is_top)
        return log_probs, is_top

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[torch.Tensor, None, None]:
        logits, targets = ctx.saved_tensors
        result, rows = torch.empty_like(logits), _rows(logits)
        for start in range(0, len(targets), rows):
            aims = targets[start : start + rows, None]
            log_softmax = F.log_softmax(logits[start : start + rows].float(), dim=-1)
            given = torch.zeros_like(log_softmax).scatter_(1, aims, gradients[0][start : start + rows, None])
            result[start : start + rows] = torch._log_softmax_backward_data(
                given, log_softmax, -1, torch.float32
            )
        return result, None, None


def _rows(logits: torch.Tensor) -> int:
    return max(1, CHUNK // logits.shape[-1])
