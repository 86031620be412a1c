"""What all trials of a study inherit: the config they share, the code, the data. A change would mix unlike trials."""

from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from llmf_hydra.config import compose
from llmf_hydra.config.schema import GROUPS
from llmf_hydra.config.secrets import masked_tree
from llmf_hydra.data.digests import dataset_files
from llmf_hydra.errors import Problem, Refused
from llmf_hydra.runs import sources

APART = ("launch", "tracking", "serve")  # groups that say where and how to run, not what
SHOWN = 3  # differences that a refusal names
Inherited = dict[str, dict[str, Any]]  # config, code, data: name -> value or digest


def of(base: DictConfig) -> Inherited:
    """The state of all that trials of this config inherit."""
    shared = [group for group in GROUPS if group not in APART]
    config: Any = masked_tree({group: OmegaConf.to_container(base[group], resolve=True) for group in shared})
    values = {f"{group}.{name}": value for group in shared for name, value in config[group].items()}
    datasets = dataset_files(compose.typed(base).data).items()
    data = {
        f"{name}: {part}": digest
        for name, files in datasets
        for part, digest in [*files["files"].items(), ("dataset_info.json", files["reading"])]
    }
    return {"config": values, "code": sources.digests(), "data": data}


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
