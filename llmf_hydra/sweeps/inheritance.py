"""What all trials of a study inherit: the config they share, the code, the data. A change would mix unlike trials."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from llmf_hydra import paths
from llmf_hydra.config.names import names
from llmf_hydra.config.schema import GROUPS
from llmf_hydra.config.secrets import masked_tree
from llmf_hydra.errors import Problem, Refused
from llmf_hydra.runs.manifest import digest_of_file

APART = ("launch", "tracking", "serve")  # groups that say where and how to run, not what
SHOWN = 3  # differences that a refusal names
Inherited = dict[str, dict[str, Any]]  # config, code, data: name -> value or digest


def of(base: DictConfig) -> Inherited:
    """The state of all that trials of this config inherit."""
    config: Any = masked_tree(
        {group: OmegaConf.to_container(base[group], resolve=True) for group in GROUPS if group not in APART}
    )
    values = {
        f"{group}.{name}": value for group, entries in config.items() for name, value in entries.items()
    }
    return {"config": values, "code": dict(_code()), "data": dict(_data(base))}


def check(known: Inherited, now: Inherited, allowed: bool) -> None:
    """Raise Refused where a study's first trials inherited something else, unless that is allowed."""
    found = list(_differences(known, now))
    if found and not allowed:
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        what = f"the study's first trials had another state of {'; '.join(found[:SHOWN])}{more}"
        remedy = "name another hydra.sweep.dir, or mix them with hydra.sweeper.allow_changes=true"
        raise Refused([Problem("hydra.sweeper.allow_changes", False, what, remedy)])


def _differences(known: Inherited, now: Inherited) -> Iterator[str]:
    for part in ("config", "code", "data"):
        before, after = known.get(part, {}), now[part]
        for name in sorted({*before, *after}):
            if before.get(name) != after.get(name):
                told = f": {before.get(name)} → {after.get(name)}" if part == "config" else ""
                yield f"{name}{told}"


def _code() -> Iterator[tuple[str, str]]:
    for file in sorted(paths.PACKAGE.rglob("*.py")):
        yield str(file.relative_to(paths.PACKAGE.parent)), _short(file)


def _data(base: DictConfig) -> Iterator[tuple[str, str]]:
    """The digest of every file that a dataset's name or folder leads to."""
    named = [*names(base.data.dataset), *names(base.data.eval_dataset)]
    folders = base.data.dataset_dir
    roots = [folders] if isinstance(folders, str) else []
    for name in named:
        for place in (
            Path(str(name)).expanduser(),
            *(Path(str(root)).expanduser() / str(name) for root in roots),
        ):
            for file in _files(place):
                yield str(file), _short(file)
    for root in roots:
        index = Path(root).expanduser() / "dataset_info.json"
        if index.is_file():
            yield str(index), _short(index)


def _files(place: Path) -> list[Path]:
    if place.is_file():
        return [place]
    return sorted(file for file in place.rglob("*") if file.is_file()) if place.is_dir() else []


def _short(file: Path) -> str:
    return digest_of_file(file)[:16]


def digest(state: Mapping[str, Any]) -> str:
    """One short digest of it all."""
    return hashlib.sha256(repr(sorted(state.items())).encode()).hexdigest()[:16]
