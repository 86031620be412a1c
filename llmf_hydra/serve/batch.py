"""The rows that a model answers at the same time, with their keys and values cached.

Rows join and leave between two tokens. They are padded on the left, so that all of them write into the same column.
"""

import inspect
from collections.abc import Sequence
from typing import Any, cast

import torch
from peft import PeftModel
from torch.nn.functional import pad
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from llmf_hydra.models.network import Network


class Batch:
    """The state of the running rows. Every method belongs to one thread."""

    def __init__(self, network: Network, pad_id: int, *, cached: bool):
        """`cached=False` computes each row anew for every token."""
        self._network, self._pad_id, self._cached = network, pad_id, cached
        inner: Any = network.get_base_model() if isinstance(network, PeftModel) else network
        self._known = inspect.signature(inner.forward).parameters
        self._config = inner.config
        self._rows: list[list[int]] = []  # all tokens of each row
        self._cache: DynamicCache | None = None
        self._mask = torch.zeros(0, 0, dtype=torch.long)  # (rows, width of the cache)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def rows(self) -> Sequence[Sequence[int]]:
        """The tokens of each row, prompt and answer."""
        return self._rows

    @property
    def takes_more(self) -> bool:
        """Whether rows may join now: layers that hold a window or a recurrent state can't be padded later."""
        return self._cache is None or all(type(layer) is DynamicLayer for layer in self._cache.layers)

    def join(self, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Add rows at the end; returns the logits after each of them, (prompts, vocabulary)."""
        ids, mask = padded(prompts, self._pad_id, self._device)
        cache = DynamicCache(config=self._config) if self._cached else None
        logits = self._forward(ids, mask, cache)
        self._rows += [list(prompt) for prompt in prompts]
        if cache is None:
            return logits
        if self._cache is None:
            self._cache, self._mask = cache, mask
        else:
            self._merge(cache, mask)
        return logits

    def step(self, tokens: Sequence[int]) -> torch.Tensor:
        """Write a token into each row; returns the logits of the next ones, (rows, vocabulary)."""
        for row, token in zip(self._rows, tokens, strict=True):
            row.append(token)
        if self._cache is None:
            return self._forward(*padded(self._rows, self._pad_id, self._device), None)
        self._mask = pad(self._mask, (0, 1), value=1)
        ids = torch.tensor(tokens, device=self._device).unsqueeze(1)
        return self._forward(ids, self._mask, self._cache)

    def keep(self, rows: Sequence[int]) -> None:
        """Let all other rows leave."""
        if len(rows) == len(self._rows):
            return
        self._rows = [self._rows[row] for row in rows]
        if not rows:
            self._cache = None
        if self._cache is None:
            return
        which = torch.tensor(rows, device=self._device)
        self._cache.reorder_cache(cast("torch.LongTensor", which))
        self._mask = self._mask[which]
        self._crop()

    @property
    def _device(self) -> torch.device:
        return next(self._network.parameters()).device

    @torch.inference_mode()
    def _forward(self, ids: torch.Tensor, mask: torch.Tensor, cache: DynamicCache | None) -> torch.Tensor:
        options: dict[str, Any] = {"attention_mask": mask, "use_cache": cache is not None}
        if cache is not None:
            options["cache" if "cache" in self._known else "past_key_values"] = cache
        if "position_ids" in self._known:
            options["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        if "logits_to_keep" in self._known:
            options["logits_to_keep"] = 1
        return self._network(input_ids=ids, **options).logits[:, -1]

    def _merge(self, cache: DynamicCache, mask: torch.Tensor) -> None:
        """Put the rows of another cache below the running ones, both padded to the same width."""
        running = cast("DynamicCache", self._cache)
        width = max(self._mask.shape[1], mask.shape[1])
        for ours, theirs in zip(_layers(running), _layers(cache), strict=True):
            if ours.is_initialized:  # a layer that shares the keys of another one holds none
                keys = [cast("torch.Tensor", of.keys) for of in (ours, theirs)]
                values = [cast("torch.Tensor", of.values) for of in (ours, theirs)]
                ours.keys = torch.cat([_widened(of, width) for of in keys])
                ours.values = torch.cat([_widened(of, width) for of in values])
        self._mask = torch.cat([pad(of, (width - of.shape[1], 0)) for of in (self._mask, mask)])

    def _crop(self) -> None:
        """Drop the columns on the left that are padding in every row."""
        idle = int((self._mask.sum(0) > 0).long().argmax())
        if idle and self.takes_more and self._cache is not None:
            for layer in _layers(self._cache):
                if layer.is_initialized:
                    keys, values = cast("torch.Tensor", layer.keys), cast("torch.Tensor", layer.values)
                    layer.keys, layer.values = keys[..., idle:, :], values[..., idle:, :]
            self._mask = self._mask[:, idle:]


def padded(
    rows: Sequence[Sequence[int]], pad_id: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids (rows, width), padded on the left, and the mask of what isn't padding."""
    width = max(map(len, rows))
    ids = [[pad_id] * (width - len(row)) + list(row) for row in rows]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def _layers(cache: DynamicCache) -> list[DynamicLayer]:
    """The layers of a cache that rows may join: they all keep every position."""
    return cast("list[DynamicLayer]", cache.layers)


def _widened(states: torch.Tensor, width: int) -> torch.Tensor:
    """Keys or values (rows, heads, length, size) with zeros on the left up to `width`."""
    return pad(states, (0, 0, width - states.shape[2], 0))
