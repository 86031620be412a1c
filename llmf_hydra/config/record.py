"""A run's `config.yaml`: written by the launcher, read by the worker, and nothing else decides a run's result."""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any, get_args

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from llmf_hydra.config import yaml_reader
from llmf_hydra.config.migrate import KEY, VERSION, migrated
from llmf_hydra.config.schema import GROUPS, Config, Entry, entries, value_at
from llmf_hydra.config.secrets import MASK, learn, masked_tree, variables
from llmf_hydra.config.switches import numbers_for_switches
from llmf_hydra.errors import NO_VALUE, Problem, Refused, did_you_mean

IN_URL = (f":{MASK}@", f"={MASK}")  # a password, or a key among the questions
HANDED = "LLMF_SECRET_"  # begins the variables in which a worker gets what is masked in its file


def dump(cfg: Config) -> str:
    """The config as YAML, whole and resolved, its secrets masked: what `config.yaml` of a run holds."""
    tree: Any = dataclasses.asdict(cfg)
    if "${" in str(tree):  # a config that was not composed, with the environment's word in its defaults
        tree = OmegaConf.to_container(OmegaConf.structured(cfg), resolve=True)
    return f"{KEY}: {VERSION}\n{OmegaConf.to_yaml(OmegaConf.create(masked_tree(tree)))}"


def load(file: Path) -> Config:
    """Read a run's `config.yaml`, also one that an older version wrote. Raises Refused where it can't be read.

    The environment has no word here any more, secrets apart.
    """
    tree = _tree(file)
    groups = migrated(tree)
    found = numbers_for_switches(groups, str(file))
    if found:
        raise Refused(found)
    cfg = _as_recorded(groups) or _converted(groups, file)
    first_layout = tree.get(KEY, 1) == 1  # wrote null for a secret, whether or not it was given
    for key, entry in entries().items():
        recorded = value_at(cfg, key)
        masked = MASK if first_layout and entry.param.secret else recorded
        setattr(getattr(cfg, entry.group), entry.name, _unmasked(entry, masked))
    learn(cfg)
    return cfg


def _as_recorded(groups: Mapping[str, Mapping[str, Any]]) -> Config | None:
    """The config where each parameter has a value of its very type, as `dump` writes them; else None."""
    found = {f"{group}.{name}": value for group, values in groups.items() for name, value in values.items()}
    if found.keys() != entries().keys():
        return None
    for key, entry in entries().items():
        kinds = (str, NoneType) if entry.type is Any else get_args(entry.type) or (entry.type,)
        if type(found[key]) not in kinds or "${" in str(found[key]):
            return None
    return Config(**{group: owner(**groups[group]) for group, owner in GROUPS.items()})


def _converted(groups: Mapping[str, Mapping[str, Any]], file: Path) -> Config:
    """The config of values that a hand has written: OmegaConf converts them. Raises Refused for one that it can't."""
    try:
        typed = OmegaConf.merge(OmegaConf.structured(Config), groups)
        return OmegaConf.to_object(typed)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        raise Refused([_wrong(file, error)]) from error


def lost(file: Path, written: int) -> list[str]:
    """The parameters that a run's `config.yaml` lacks, where it holds fewer than the `written` ones it was made with.

    A file that lost some would be read with their defaults, and so train something else.
    """
    held = {f"{group}.{name}" for group, values in migrated(_tree(file)).items() for name in values}
    return [key for key in entries() if key not in held] if len(held) < written else []


def hidden(cfg: Config) -> dict[str, str]:
    """What `config.yaml` doesn't hold, as the environment variables in which a worker gets it."""
    values = {key: value_at(cfg, key) for key in entries()}
    written = masked_tree(values)
    return {_variable(key): json.dumps(values[key]) for key in values if written[key] != values[key]}


def missing(file: Path) -> list[str]:
    """The secrets that a run was given and that this process lacks, each with the variable that gives it."""
    found = []
    for group, values in migrated(_tree(file)).items():
        for name, value in values.items():
            entry = entries().get(f"{group}.{name}")
            if entry and _is_masked(entry, value) and _unmasked(entry, value) in (None, value):
                found.append(
                    f"{entry.key} (set {' or '.join(variables(entry.key) or [_variable(entry.key)])})"
                )
    return found


def is_handed(variable: str) -> bool:
    """Whether an environment variable is one in which a worker gets what its `config.yaml` doesn't hold."""
    return variable.startswith(HANDED)


def _is_masked(entry: Entry, recorded: object) -> bool:
    return recorded == MASK if entry.param.secret else any(part in str(recorded) for part in IN_URL)


def _unmasked(entry: Entry, recorded: object) -> object:
    """The value behind a mask: what the launcher handed over, or the user's variable where it fits the record.

    None for a secret that is missing; the masked URL where its password is.
    """
    handed = os.environ.get(_variable(entry.key))
    if handed is not None:
        return json.loads(handed)
    if not _is_masked(entry, recorded):
        return recorded
    given = next((os.environ[name] for name in variables(entry.key) if os.environ.get(name)), None)
    if entry.param.secret:
        return given
    return given if given is not None and masked_tree(given) == recorded else recorded


def _variable(key: str) -> str:
    """Environment variable through which the launcher hands a value to its worker."""
    return HANDED + key.replace(".", "_").upper()


def _tree(file: Path) -> dict[str, Any]:
    try:
        tree: Any = yaml_reader.read(file)
    except OSError as error:
        raise Refused([Problem(str(file), NO_VALUE, f"cannot be read: {error.strerror}")]) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Refused(
            [Problem(str(file), NO_VALUE, f"is not YAML: {' '.join(str(error).split())}")]
        ) from error
    if tree is None:  # an empty file
        return {}
    if not isinstance(tree, dict):
        raise Refused([Problem(str(file), NO_VALUE, "holds no config")])
    return tree


def _wrong(file: Path, error: OmegaConfBaseException) -> Problem:
    """What does not fit the schema: an unknown key with the nearest one, or a value of another type."""
    key = error.full_key or str(error.key or "")
    what = str(error).strip().splitlines()[0]
    entry = entries().get(key)
    if entry is None:
        return Problem(f"{key} (in {file})", NO_VALUE, "no such parameter", did_you_mean(key, entries()))
    return Problem(f"{key} (in {file})", NO_VALUE, what, f"it must be of type {entry.type_name}")
