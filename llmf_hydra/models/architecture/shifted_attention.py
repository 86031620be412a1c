"""Shifted sparse attention, S2-Attn (Chen et al. 2023, LongLoRA, arXiv:2309.12307, section 3.2).

A sequence of n tokens is cut into groups of G = n / 4. Half of the heads attend within them; the other half within
groups that are shifted by G / 2, so that neighbours exchange what they know. The paper rolls the tokens, and mentions
that a changed mask keeps the last group, which holds the sequence's end and its beginning, from leaking: here these two
halves are groups of their own, and no mask is needed. Training alone attends so; evaluation and generation see all.
"""

from typing import Any

import torch
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "shifted_sparse"  # under which Transformers knows it
GROUPS = 4  # LongLoRA's group_size_ratio of 0.25


def shifted_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of `query` (batch, heads, n, size), and `key` and `value` with as many heads or fewer.

    Padding stands on the right in training, where no token that counts sees it; so the mask is of no use there.
    Returns (batch, n, heads, size).
    """
    if not module.training:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    repeats = query.shape[1] // key.shape[1]
    key, value = (states.repeat_interleave(repeats, dim=1) for states in (key, value))
    length = query.shape[2]
    fill = -length % (2 * GROUPS)  # groups that can be halved
    states = tuple(F.pad(each, (0, 0, 0, fill)) for each in (query, key, value))
    group, half = (length + fill) // GROUPS, query.shape[1] // 2

    def attend(heads: slice, start: int, stop: int, size: int) -> torch.Tensor:
        """Causal attention of some heads within each `size` of the tokens from `start` to `stop`."""
        q, k, v = (each[:, heads, start:stop].unflatten(2, (-1, size)) for each in states)
        out = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=scaling, is_causal=True)
        return out.flatten(2, 3)

    straight, shifted = slice(None, half), slice(half, None)
    end = length + fill
    whole = attend(straight, 0, end, group)
    parts = [
        attend(shifted, 0, group // 2, group // 2),
        attend(shifted, group // 2, end - group // 2, group),
        attend(shifted, end - group // 2, end, group // 2),
    ]
    out = torch.cat([whole, torch.cat(parts, dim=2)], dim=1)[:, :, :length]
    return out.transpose(1, 2).contiguous(), None


def register() -> str:
    """Make it known to Transformers; returns its name, for `attn_implementation`."""
    AttentionInterface.register(NAME, shifted_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    return NAME
