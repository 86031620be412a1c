"""One module a format: `convert(raw, source) -> Row`.

Chosen by its name, `formatting` in dataset_info.json.
"""

import functools
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any

from llmf_hydra.data.rows import Row
from llmf_hydra.data.sources.dataset_info import Source

Convert = Callable[[Mapping[str, Any], Source], Row]


@functools.cache
def converter(formatting: str) -> Convert:
    """The function that brings rows of this format into the canonical form."""
    return import_module(f"llmf_hydra.data.formats.{formatting}").convert


def guess(columns: Iterable[str]) -> str | None:
    """The format of a file that no table describes, by the columns of its first row."""
    have = set(columns)
    if "conversations" in have:
        return "sharegpt"
    if "instruction" in have:
        return "alpaca"
    if "messages" in have:
        return "openai"
    if have & {"prompt", "completion", "chosen", "rejected"}:
        return "trl"
    return "text" if "text" in have else None
