"""The flags of the command that repeats a trial on its own: where its config was composed from."""

from collections.abc import Mapping, Sequence
from typing import Any

from llmf_hydra.config import compose


def flags(config_name: str, sources: Sequence[Mapping[str, Any]]) -> list[str]:
    """`--config-name`, `--config-path` and `--config-dir`; `sources` are the study's `hydra.runtime.config_sources`."""
    found = {source["provider"]: str(source["path"]) for source in sources}
    given = [] if config_name == compose.PRIMARY else ["--config-name", config_name]
    if "llmf-shipped" in found:  # the shipped configs come after those of --config-path
        given += ["--config-path", found["main"]]
    if "command-line" in found:
        given += ["--config-dir", found["command-line"]]
    return given
