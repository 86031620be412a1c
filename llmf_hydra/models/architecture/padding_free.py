"""Rows end to end in one line, (1, all tokens), each attending to itself alone: no padding is computed.

Transformers does this with flash attention, whose kernels take the borders of the rows. For scaled dot product
attention it has a mask of all tokens by all tokens. Here each row goes through `scaled_dot_product_attention` of its
own, causal and without a mask, so that its kernel skips what no token sees; all else in a network looks at single
tokens and doesn't know of rows.

A model takes it through Transformers' own registries: under the name `sdpa` stand Transformers' functions, which are
called unless a forward pass runs within `end_to_end`. Then the model's mask is a `Rows`, which it hands to its layers
like any other, checkpointed or not.
"""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import causal_mask_function, sdpa_mask

from llmf_hydra.models.architecture.mixture_of_depths import is_converted
from llmf_hydra.models.network import Network

ATTENTION = "sdpa"
REMEDY = "set model.flash_attn=disabled, with which rows are padded"
LAYERS = (
    "full_attention",
    "sliding_attention",
)  # that are computed here, as a config's `layer_types` names them


@dataclass
class Tally:
    """Attention layers that a model has, and those that have kept the rows apart so far."""

    layers: int = 0
    computed: int = 0


@dataclass(frozen=True, eq=False)
class Rows:
    """Where rows lie in a line of tokens, and what each sees: itself up to its own place.

    A row with `prefixes` above 0 also sees so many first tokens of the row before it, which has a prefix of 0: two
    answers to one prompt, of which the first stands in one row with it. With a `window` a token sees only the
    last so many tokens, itself among them.
    """

    lengths: tuple[int, ...]
    prefixes: tuple[int, ...] = ()  # one of each row; none at all where no row has one
    window: int | None = None
    tally: Tally = field(default_factory=Tally)
    _masks: dict[tuple[int, int, torch.device], torch.Tensor] = field(default_factory=dict)

    def within(self, window: int | None) -> "Rows":
        """The same rows in layers of a sliding window."""
        return self if window is None else Rows(self.lengths, self.prefixes, window, self.tally)

    def mask(self, prefix: int, length: int, device: torch.device) -> torch.Tensor | None:
        """What the tokens of a row see of (prefix, row), boolean (length, prefix + length); None where causal says it.

        Made once per batch, not once per layer.
        """
        whole = prefix + length
        if not prefix and (self.window is None or whole <= self.window):
            return None
        at = prefix, length, device
        if at not in self._masks:
            query = torch.arange(prefix, whole, device=device).unsqueeze(1)
            key = torch.arange(whole, device=device)
            sees = key <= query
            self._masks[at] = sees if self.window is None else sees & (key > query - self.window)
        return self._masks[at]


_current: ContextVar[Rows | None] = ContextVar("rows", default=None)


@contextmanager
def end_to_end(rows: Rows, *, every_layer: bool = True) -> Iterator[None]:
    """The forward pass of one line of tokens, whose attention keeps its rows apart; their positions are the caller's.

    The model is to be given a mask of ones, (1, tokens), so that it looks for no borders of its own. Raises
    RuntimeError where not every layer (`every_layer`) has asked for the rows: the others would have mixed them.
    """
    token = _current.set(rows)
    try:
        yield
    finally:
        _current.reset(token)
    if not rows.tally.computed or (every_layer and rows.tally.computed != rows.tally.layers):
        raise RuntimeError(
            f"{rows.tally.computed} of {rows.tally.layers} layers kept the rows of the batch apart, so its numbers are "
            f"wrong; {REMEDY}, and report this model"
        )


def unfit(model: Network) -> str | None:
    """Why a model can't take rows end to end, in words that complete "padding is computed: ..."; None where it can."""
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    config = base.config.get_text_config()
    fields = config.to_dict()
    named = fields.get("layer_types") or fields.get("layers_block_type") or ()
    other = sorted({str(kind) for kind in named} - set(LAYERS))
    if base.config._attn_implementation != ATTENTION:
        return f"the attention is {base.config._attn_implementation}, not {ATTENTION}"
    if config is not base.config:
        return "the model takes more than text"
    if not isinstance(base, PreTrainedModel) or not base._supports_attention_backend:
        return f"a {config.model_type} model doesn't take its attention from Transformers' registry"
    if is_converted(base.config):
        return "tokens are chosen by row (model.mixture_of_depths)"
    if (
        other
        or fields.get("attention_chunk_size")
        or any(isinstance(part, nn.Conv1d) for part in base.modules())
    ):
        return (
            f"the model has layers of another kind than attention over all or the last tokens{_listed(other)}"
        )
    if fields.get("is_causal") is False or fields.get("use_bidirectional_attention"):
        return "the attention isn't causal"
    if not has_positions(base):
        return f"a {config.model_type} model takes no position_ids"
    return None


def has_positions(base: nn.Module) -> bool:
    """Whether a bare model's forward takes `position_ids`."""
    return "position_ids" in inspect.signature(type(base).forward).parameters


def register() -> None:
    """Put the rows' functions before Transformers' own, which they call for all that isn't `end_to_end`."""
    AttentionInterface.register(ATTENTION, attention_of_rows)
    AttentionMaskInterface.register(ATTENTION, mask_of_rows)


def mask_of_rows(*args: Any, **kwargs: Any) -> Any:
    """What a model gives its layers for a mask: the rows of the batch, or Transformers' own mask."""
    rows = _current.get()
    if rows is None:
        return sdpa_mask(*args, **kwargs)
    window, pattern = kwargs.get("local_size"), kwargs["mask_function"]
    if kwargs["use_vmap"] or (window is None and pattern is not causal_mask_function):
        raise RuntimeError(f"the model's mask is another than a causal one; {REMEDY}")
    rows.tally.layers = kwargs["config"].num_hidden_layers
    return rows.within(window)


def attention_of_rows(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of `query` (1, heads, tokens, size), and `key` and `value` with as many heads or fewer, by row.

    Returns (1, tokens, heads, size). Any other mask than `Rows` is Transformers' to compute.
    """
    if not isinstance(attention_mask, Rows):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    if kwargs.get("softcap") is not None or kwargs.get("position_bias") is not None:
        raise RuntimeError(f"the model's attention isn't one of scaled dot products alone; {REMEDY}")
    rows = attention_mask
    rows.tally.computed += 1
    groups = query.shape[1] // key.shape[1]
    states = [states.split(rows.lengths, dim=2) for states in (query, key, value)]
    outputs: list[torch.Tensor] = []
    for at, (q, k, v) in enumerate(zip(*states, strict=True)):
        prefix = rows.prefixes[at] if rows.prefixes else 0
        if prefix:
            k, v = (torch.cat([part[at - 1][:, :, :prefix], part[at]], dim=2) for part in states[1:])
        mask = rows.mask(prefix, q.shape[2], q.device)
        grouped = groups > 1 and mask is None and key.shape[-1] == value.shape[-1] <= 256
        if groups > 1 and not grouped:
            k, v = repeat_kv(k, groups), repeat_kv(v, groups)
        outputs.append(
            F.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=mask is None, scale=scaling,
                enable_gqa=grouped,
            ).transpose(1, 2)
        )  # fmt: skip
    return (torch.cat(outputs, dim=1) if len(outputs) > 1 else outputs[0].contiguous()), None


def _listed(kinds: Sequence[str]) -> str:
    return f" ({', '.join(kinds)})" if kinds else ""
