"""The bridge to Hydra: the schema in its store, our folders in its search path, and the id of a run."""

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf

from llmf_hydra import paths
from llmf_hydra.config.implied import DEMO
from llmf_hydra.config.schema import GROUPS, Config


class OurSearchPath(SearchPathPlugin):
    """The user's own conf folder goes before the shipped one; the studies come after it."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        user = paths.user_conf_dir()
        if user is not None:
            search_path.prepend("llmf-conf", f"file://{user}")
        search_path.append("llmf-sweeps", f"file://{paths.sweeps_dir()}")


def register() -> None:
    """Make the schema, the search path and the resolver known to Hydra. Safe to call twice."""
    ConfigStore.instance().store(name="schema", node=Config)
    Plugins.instance().register(OurSearchPath)
    OmegaConf.register_new_resolver("run_id", lambda: secrets.token_hex(3), use_cache=True, replace=True)


def conf_dirs(extra: str | None = None) -> list[Path]:
    """The folders that hold config groups, first the one that wins: the user's, ours, `--config-dir`."""
    folders = [paths.user_conf_dir(), paths.conf_dir(), Path(extra) if extra else None]
    return [folder for folder in folders if folder is not None]


def options(group: str, folders: list[Path]) -> list[str]:
    """The choices of a group: the names of its files."""
    return sorted({file.stem for folder in folders for file in (folder / group).glob("*.yaml")})


def shipped_values(choices: Mapping[str, Any]) -> dict[str, Any]:
    """What the package's own files for these choices set, by full key; a user's file of that name counts not."""
    values: dict[str, Any] = {}
    user = paths.user_conf_dir()
    for group in (*GROUPS, DEMO):
        chosen = choices.get(group) or []
        for name in [chosen] if isinstance(chosen, str) else chosen:
            file = paths.conf_dir() / group / f"{name}.yaml"
            own = user is not None and (user / group / file.name).exists()
            if file.exists() and not own:
                values |= flat_values(file, group)
    return values


def flat_values(file: Path, group: str) -> dict[str, Any]:
    """The values of a config file by full key; `# @package _global_` lifts it out of its group."""
    loaded = OmegaConf.load(file)
    content: Any = OmegaConf.to_container(loaded, resolve=False) if isinstance(loaded, DictConfig) else {}
    is_global = file.read_text(encoding="utf8").startswith("# @package _global_")
    tree = content if is_global else {group: content}
    return {
        f"{owner}.{name}": value
        for owner, rows in tree.items()
        if owner not in ("defaults", "hydra")
        for name, value in (rows.items() if isinstance(rows, dict) else [("", rows)])
        if name != "defaults"
    }


def to_config(composed: DictConfig) -> Config:
    """The typed config of what Hydra composed, with interpolations resolved."""
    groups = {group: OmegaConf.to_object(composed[group]) for group in GROUPS}
    return Config(**groups)  # type: ignore[arg-type]  # each an object of its group, by the schema
