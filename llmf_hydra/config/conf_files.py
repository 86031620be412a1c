"""The conf folders as files: which choices a group has, and what a file sets. Without Hydra, so that help is quick."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from llmf_hydra import paths
from llmf_hydra.config.schema import GROUPS
from llmf_hydra.errors import Problem, Refused

DEMO = "demo"  # the group that holds a demo per stage
GLOBAL = ("", "_global_")  # packages of a file that sets whole groups


def check_user_conf() -> None:
    """Raise Refused where `LLMF_CONF` names no folder: without it the run would be another one."""
    user = paths.user_conf_dir()
    if user is not None and not user.is_dir():
        what = "is a file" if user.exists() else "there is no such folder"
        raise Refused([Problem("LLMF_CONF", user, what, "name a conf folder, or unset LLMF_CONF")])


def holds_groups(folder: Path) -> bool:
    """Whether a folder has a folder of its own for some config group."""
    groups = {*GROUPS, "hydra", *(group.name for group in paths.conf_dir().iterdir() if group.is_dir())}
    return any((folder / group).is_dir() for group in groups)


def choices(group: str) -> list[str]:
    """The choices of a group: the names of its files, the user's own and the shipped ones."""
    folders = [folder for folder in (paths.user_conf_dir(), paths.conf_dir()) if folder is not None]
    return sorted({file.stem for folder in folders for file in (folder / group).glob("*.yaml")})


def file_of(group: str, choice: str) -> Path:
    """The file of a choice: the user's own where there is one."""
    user = paths.user_conf_dir()
    own = user / group / f"{choice}.yaml" if user is not None else None
    return own if own is not None and own.exists() else paths.conf_dir() / group / f"{choice}.yaml"


def shipped_values(chosen: Mapping[str, Any]) -> dict[str, object]:
    """What the package's own files for these choices set, by full key; a user's file of that name counts not."""
    values: dict[str, object] = {}
    user = paths.user_conf_dir()
    for group in (*GROUPS, DEMO):
        names = chosen.get(group) or []
        for name in [names] if isinstance(names, str) else names:
            file = paths.conf_dir() / group / f"{name}.yaml"
            own = user is not None and (user / group / file.name).exists()
            if file.exists() and not own:
                values |= flat_values(file, group)
    return values


def flat_values(file: Path, package: str) -> dict[str, object]:
    """The values of a config file by full key; `# @package _global_` lifts it out of its group."""
    lifts_itself, content = _read(file, file.stat().st_mtime_ns)
    tree = content if lifts_itself or package in GLOBAL else {package: content}
    return {
        f"{owner}.{name}" if name else owner: value
        for owner, rows in tree.items()
        if owner not in ("defaults", "hydra")
        for name, value in (rows.items() if isinstance(rows, dict) else [("", rows)])
        if name != "defaults"
    }


@cache
def _read(file: Path, _version: int) -> tuple[bool, dict[str, Any]]:
    """Whether a config file lifts itself out of its group, and what it holds; `_version` changes when it does."""
    from llmf_hydra.config import yaml_reader

    content = yaml_reader.read(file)
    lifts_itself = file.read_text(encoding="utf8").startswith("# @package _global_")
    return lifts_itself, content if isinstance(content, dict) else {}
