"""A reward's module that lies beside the user's configs instead of where the command is started."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

KIND = "python"


def located(rewards: Any, folders: Sequence[Path]) -> Any:
    """The list `rlhf.rewards`. A module that isn't beside the command but in one of the folders of configs, in its
    `experiment/`, or beside it, is named by its file there: workers, trials and repetitions know no such folders."""
    if isinstance(rewards, list):
        return [_located(item, folders) for item in rewards]
    return _located(rewards, folders)


def _located(item: Any, folders: Sequence[Path]) -> Any:
    if isinstance(item, str) and item.startswith(f"{KIND}:"):
        return f"{KIND}:{_file_named(item.removeprefix(f'{KIND}:'), folders)}"
    if isinstance(item, dict) and item.get("kind") == KIND and isinstance(item.get("function"), str):
        return {**item, "function": _file_named(item["function"], folders)}
    return item


def _file_named(function: str, folders: Sequence[Path]) -> str:
    module, colon, name = function.rpartition(":")
    here = Path.cwd().resolve()
    if not module.isidentifier() or (here / f"{module}.py").exists() or (here / module).is_dir():
        return function
    for folder in folders:
        for place in (folder, folder / "experiment", folder.parent):
            file = (place / f"{module}.py").resolve()
            if file.is_file():
                below = file.is_relative_to(here)  # relative, so that a project can be moved
                return f"{file.relative_to(here) if below else file}{colon}{name}"
    return function
