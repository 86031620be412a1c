"""A run's `config.yaml`: written by the launcher, read by the worker, and nothing else decides a run's result."""

import os
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from llmf_hydra.config.migrate import KEY, VERSION, migrated
from llmf_hydra.config.schema import Config, entries
from llmf_hydra.errors import NO_VALUE, Problem, Refused, did_you_mean


def dump(cfg: Config) -> str:
    """The config as YAML, whole and resolved, without secrets: what `config.yaml` of a run holds."""
    typed = OmegaConf.structured(cfg)
    for key, entry in entries().items():
        if entry.param.secret:
            OmegaConf.update(typed, key, None)
    return f"{KEY}: {VERSION}\n{OmegaConf.to_yaml(typed, resolve=True)}"


def load(file: Path) -> Config:
    """Read a run's `config.yaml`, also one that an older version wrote. Raises Refused where it can't be read.

    The environment has no word here any more, secrets apart.
    """
    try:
        typed = OmegaConf.merge(OmegaConf.structured(Config), migrated(_tree(file)))
        cfg: Config = OmegaConf.to_object(typed)  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        raise Refused([_wrong(file, error)]) from error
    for key, entry in entries().items():
        if entry.param.secret:
            setattr(getattr(cfg, entry.group), entry.name, os.environ.get(secret_variable(key)))
    return cfg


def secret_variable(key: str) -> str:
    """Environment variable through which the launcher hands a secret to its worker."""
    return "LLMF_SECRET_" + key.replace(".", "_").upper()


def _tree(file: Path) -> dict[str, Any]:
    try:
        tree: Any = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    except OSError as error:
        raise Refused([Problem(str(file), NO_VALUE, f"cannot be read: {error.strerror}")]) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Refused(
            [Problem(str(file), NO_VALUE, f"is not YAML: {' '.join(str(error).split())}")]
        ) from error
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
