"""What all trials of a study inherit: the config they share, the code, the data, the weights. A change would mix unlike
trials."""

from collections.abc import Iterable, Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from llmf_hydra.config.schema import GROUPS, Config
from llmf_hydra.config.secrets import masked_tree
from llmf_hydra.data.digests import dataset_files
from llmf_hydra.errors import Problem, Refused
from llmf_hydra.models.digests import starting_weights
from llmf_hydra.runs import sources
from llmf_hydra.training.rewards.files import reward_files

APART = ("launch", "tracking", "serve")  # groups that say where and how to run, not what
SHOWN = 3  # differences that a refusal names
PARTS = ("config", "code", "data", "weights")
Inherited = dict[str, dict[str, Any]]  # of each part: name -> value or digest


def of(base: DictConfig, read: Iterable[Config]) -> Inherited:
    """The state of all that trials inherit: `base` is what they share, `read` the configs whose files they read."""
    shared = [group for group in GROUPS if group not in APART]
    config: Any = masked_tree({group: OmegaConf.to_container(base[group], resolve=True) for group in shared})
    values = {f"{group}.{name}": value for group in shared for name, value in config[group].items()}
    data: dict[str, Any] = {}
    weights: dict[str, Any] = {}
    for cfg in read:
        for name, files in dataset_files(cfg.data).items():
            parts = {**files["files"], "dataset_info.json": files["reading"]}
            _add(data, {f"{name}: {part}": digest for part, digest in parts.items()})
        for name, files in reward_files(cfg).items():
            _add(data, {f"reward {name}: {part}": digest for part, digest in files["files"].items()})
        _add(weights, starting_weights(cfg))
    return {"config": values, "code": sources.digests(), "data": data, "weights": weights}


def _add(known: dict[str, Any], found: dict[str, Any]) -> None:
    """Add digests by name; another dataset or model under the same name gets a number."""
    for name, digest in found.items():
        label, number = name, 1
        while known.get(label, digest) != digest:
            number += 1
            label = f"{name} ({number})"
        known[label] = digest


def check(known: Inherited, now: Inherited, allowed: bool) -> None:
    """Raise Refused where a study's first trials inherited something else, unless that is allowed."""
    found = list(_differences(known, now))
    if found and not allowed:
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        what = f"the study's first trials had another state of {'; '.join(found[:SHOWN])}{more}"
        remedy = "name another hydra.sweep.dir, or mix them with hydra.sweeper.allow_changes=true"
        raise Refused([Problem("hydra.sweeper.allow_changes", False, what, remedy)])


def _differences(known: Inherited, now: Inherited) -> Iterator[str]:
    for part in PARTS:
        if part not in known:  # of an older version
            continue
        before, after = known[part], now[part]
        names = {*before, *after} if part != "weights" else before.keys() & after.keys()  # a hub's come later
        for name in sorted(names):
            if before.get(name) != after.get(name):
                told = f": {before.get(name)} → {after.get(name)}" if part == "config" else ""
                yield f"{'the weights of ' if part == 'weights' else ''}{name}{told}"
