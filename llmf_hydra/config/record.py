"""A run's `config.yaml`: written by the launcher, read by the worker, and nothing else decides a run's result."""

import os
from pathlib import Path

from omegaconf import OmegaConf

from llmf_hydra.config.schema import Config, entries


def dump(cfg: Config) -> str:
    """The config as YAML, whole and resolved, without secrets: what `config.yaml` of a run holds."""
    typed = OmegaConf.structured(cfg)
    for key, entry in entries().items():
        if entry.param.secret:
            OmegaConf.update(typed, key, None)
    return OmegaConf.to_yaml(typed, resolve=True)


def load(file: Path) -> Config:
    """Read a run's `config.yaml`; the environment has no word here any more, secrets apart."""
    typed = OmegaConf.merge(OmegaConf.structured(Config), OmegaConf.load(file))
    cfg: Config = OmegaConf.to_object(typed)  # type: ignore[assignment]
    for key, entry in entries().items():
        if entry.param.secret:
            setattr(getattr(cfg, entry.group), entry.name, os.environ.get(secret_variable(key)))
    return cfg


def secret_variable(key: str) -> str:
    """Environment variable through which the launcher hands a secret to its worker."""
    return "LLMF_SECRET_" + key.replace(".", "_").upper()
