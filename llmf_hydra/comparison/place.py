"""Where the paths of a recorded run lead here: its own working directory, or the place it was copied to."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmf_hydra.config.names import names
from llmf_hydra.config.schema import Config
from llmf_hydra.errors import Problem
from llmf_hydra.runs.manifest import shipped_folders

# Settings that name files or folders, several of them separated by commas.
PATHS = ("data.dataset", "data.eval_dataset", "data.dataset_dir", "data.media_dir", "data.tokenized_path",
         "model.model_name_or_path", "model.adapter_name_or_path", "model.cache_dir", "rlhf.ref_model",
         "rlhf.ref_model_adapters", "rlhf.reward_model", "rlhf.reward_model_adapters",
         "training.resume_from_checkpoint")  # fmt: skip


@dataclass
class Place:
    """The working directory of the new run, and the paths that were led elsewhere: (setting, recorded, here)."""

    cwd: Path
    moved: list[tuple[str, str, str]] = field(default_factory=list)


Check = Callable[[Config], Iterable[Problem]]  # what is wrong with the files that a config names


def settle(cfg: Config, manifest: Mapping[str, Any], out: Path, check: Check) -> tuple[Place, list[Problem]]:
    """Find what the config names and change into the folder that its relative paths start from.

    Tried are the recorded working directory, the run's folder and the present one, in this order; the first counts
    in which all is there, else the one that lacks the fewest, whose problems are returned. An absolute path that is
    gone is looked for below them too, and in the package's own folders; where it is found, `cfg` names it from then on.
    """
    tried: list[tuple[list[Problem], Path, list[tuple[str, str, str]]]] = []
    given = {key: _value(cfg, key) for key in PATHS}
    here = Path.cwd()
    for base in dict.fromkeys((Path(manifest["cwd"]), out, here)):
        if not base.is_dir():
            continue
        os.chdir(base)
        moved = list(_lead(cfg, manifest, base))
        problems = [*_gone(cfg, manifest), *check(cfg)]
        tried.append((problems, base, moved))
        if not problems:
            return Place(base, moved), []
        for key, value in given.items():
            _set(cfg, key, value)
    os.chdir(here)
    problems, base, _ = min(tried, key=lambda one: len(one[0]))
    return Place(base), problems


def missing(problem: Problem, manifest: Mapping[str, Any]) -> Problem:
    """The problem, with the recorded digests of what it is about."""
    recorded = manifest.get("files") or {}
    if problem.key.startswith("data"):
        about = [entry for name, entry in (recorded.get("data") or {}).items() if _is_about(name, problem)]
    else:
        about = [
            entry for key, entry in (recorded.get("models") or {}).items() if key.startswith(problem.key)
        ]
    digests = ", ".join(
        f"{name} sha256 {digest}" for entry in about for name, digest in list(entry["files"].items())[:8]
    )
    if not digests:
        return problem
    remedy = f"{problem.remedy}; " if problem.remedy else ""
    return Problem(problem.key, problem.value, problem.what, f"{remedy}recorded: {digests}")


def _gone(cfg: Config, manifest: Mapping[str, Any]) -> Iterator[Problem]:
    """Models that were folders: without this a relative path that is gone would be taken for a hub's name."""
    recorded = ((manifest.get("files") or {}).get("models") or {}).values()
    folders = {entry["path"] for entry in recorded}
    for key in PATHS:
        if key.startswith("data."):
            continue
        for name in names(_value(cfg, key)):
            if name in folders and not Path(name).is_dir() and not name.startswith((".", "/", "~")):
                yield Problem(key, name, "there is no such folder")


def _is_about(name: str, problem: Problem) -> bool:
    return Path(str(problem.value)).name == name or str(problem.value) in name


def _lead(cfg: Config, manifest: Mapping[str, Any], base: Path) -> Iterator[tuple[str, str, str]]:
    """Put into the config where an absolute path that is gone lies now."""
    for key in PATHS:
        value = _value(cfg, key)
        if not isinstance(value, str):
            continue
        led = [_here(name, manifest, base) for name in names(value)]
        if led != names(value):
            _set(cfg, key, ",".join(led))
            yield from ((key, old, new) for old, new in zip(names(value), led, strict=True) if old != new)


def _here(name: str, manifest: Mapping[str, Any], base: Path) -> str:
    path = Path(name)
    if not path.is_absolute() or path.exists():
        return name
    roots = [(Path(manifest["cwd"]), base)]
    recorded = map(Path, manifest.get("shipped", ()))
    roots += zip(recorded, shipped_folders(), strict=False)
    for root, here in roots:
        if root in path.parents and (here / path.relative_to(root)).exists():
            return str(here / path.relative_to(root))
    return name


def _value(cfg: Config, key: str) -> Any:
    group, name = key.split(".")
    return getattr(getattr(cfg, group), name)


def _set(cfg: Config, key: str, value: Any) -> None:
    group, name = key.split(".")
    setattr(getattr(cfg, group), name, value)
