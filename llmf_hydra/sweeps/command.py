"""The command that repeats a trial on its own: the flags and Hydra's words that its config was composed with."""

from collections.abc import Mapping, Sequence
from typing import Any

from llmf_hydra.config import compose

COMPOSING = (
    "hydra.searchpath",
    "hydra.job.env_set",
)  # Hydra's own settings that a trial's config or result depends on


def flags(config_name: str, sources: Sequence[Mapping[str, Any]]) -> list[str]:
    """`--config-name`, `--config-path` and `--config-dir`; `sources` are the study's `hydra.runtime.config_sources`."""
    found = {source["provider"]: str(source["path"]) for source in sources}
    given = [] if config_name == compose.PRIMARY else ["--config-name", config_name]
    if "llmf-shipped" in found:  # the shipped configs come after those of --config-path
        given += ["--config-path", found["main"]]
    if "command-line" in found:
        given += ["--config-dir", found["command-line"]]
    return given


def composing(words: Sequence[str]) -> list[str]:
    """Those of a study's words for Hydra that its trials need too, such as `hydra.searchpath=[…]`."""
    return [word for word in words if word.lstrip("+~").startswith(COMPOSING)]
