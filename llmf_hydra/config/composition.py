"""From what Hydra composed to a typed Config, and from what went wrong on the way to sentences."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from llmf_hydra.config import implied
from llmf_hydra.config.overrides import unknown, value_problem
from llmf_hydra.config.param import set_in_environment
from llmf_hydra.config.schema import GROUPS, Config, entries
from llmf_hydra.config.store import flat_values, options, shipped_values, to_config
from llmf_hydra.errors import NO_VALUE, Problem, Refused, did_you_mean
from llmf_hydra.paths import conf_dir, sweeps_dir

HYDRA_ADVICE = re.compile(r"\n?To append to your (config|default list) use .*", re.DOTALL)


def typed(composed: DictConfig) -> Config:
    """The typed config; raises Refused with every value that cannot be resolved or has the wrong type."""
    found = list(_unresolved(composed))
    if found:
        raise Refused(found)
    return to_config(composed)


def settled(words: list[str], config_name: str = "config") -> list[str]:
    """The overrides of a run, or of one trial, with those that they imply; as they are where they can't be composed."""
    try:
        return implied.settled(
            words, lambda all_words: _composed([*all_words, "hydra.mode=RUN"], config_name)
        )
    except (HydraException, OmegaConfBaseException):
        return words  # told when the run is composed


def is_sweep(words: list[str], config_name: str) -> bool:
    """Whether a config asks for a sweep itself, as a study does."""
    try:
        return _composed(words, config_name)[0].hydra.mode == RunMode.MULTIRUN
    except (HydraException, OmegaConfBaseException):
        return False


def _composed(words: list[str], config_name: str) -> tuple[DictConfig, Mapping[str, Any], Mapping[str, Any]]:
    inside = GlobalHydra.instance().is_initialized()  # a sweeper asks for its trials
    with nullcontext() if inside else initialize_config_dir(str(conf_dir()), version_base="1.3"):
        whole = compose(config_name, words, return_hydra_config=True)
    choices = whole.hydra.runtime.choices
    return whole, choices, shipped_values(choices)


def problems(error: Exception, folders: list[Path]) -> list[Problem]:
    """Why Hydra could not compose: what is wrong in the config files, or else the error in its own words."""
    told = [*_of_several_values(error), *_of_defaults(error, folders)]
    if not told:
        told = [problem for folder in folders if folder != conf_dir() for problem in _wrong_in_files(folder)]
    return told or [Problem(_first_line(error), NO_VALUE, "the config cannot be composed")]


def _unresolved(composed: DictConfig) -> Iterator[Problem]:
    for key, entry in entries().items():
        try:
            composed[entry.group][entry.name]
        except OmegaConfBaseException as error:
            raw = OmegaConf.to_container(composed[entry.group], resolve=False)[entry.name]  # type: ignore[index]
            if set_in_environment(entry.param):
                value = os.environ[str(entry.param.env)]
                yield Problem(
                    f"{key} (from {entry.param.env})",
                    value,
                    f"is not of type {entry.type_name}",
                    f"change or unset {entry.param.env}",
                )
            else:
                yield Problem(key, raw, f"cannot be resolved: {_first_line(error)}")


def _wrong_in_files(folder: Path) -> Iterator[Problem]:
    """Unknown keys and wrong values in the files of a user's conf folder; the package's own are tested."""
    for file in sorted(folder.glob("*/*.yaml")):
        group = file.parent.name
        if group not in GROUPS and group != "experiment":
            continue
        try:
            values = flat_values(file, group)
        except Exception as error:  # not YAML at all: the parser's own words say where
            yield Problem(str(file), NO_VALUE, f"is not readable YAML: {_first_line(error)}")
            continue
        for key, value in values.items():
            entry = entries().get(key)
            found = unknown(key) if entry is None else filter(None, [value_problem(entry, value)])
            for problem in found:
                yield Problem(f"{problem.key} (in {file})", value, problem.what, problem.remedy)


def _of_several_values(error: Exception) -> Iterator[Problem]:
    """Hydra's message on `key=a,b` in a single run."""
    given = re.search(r"Ambiguous value for argument '([^=]+)=(.*)'", str(error))
    if given:
        key, value = given.groups()
        what = "is several values, and this is one run"
        yield Problem(key, value, what, f"add -m to run each, or quote a list of names: \"{key}='{value}'\"")


def _of_defaults(error: Exception, folders: list[Path]) -> Iterator[Problem]:
    """Hydra's message on a group or choice that isn't there, with the nearest name instead of its list."""
    missing = re.search(r"Could not find '([^']+)/([^'/]+)'", str(error))
    if missing:
        group, name = missing.groups()
        yield Problem(
            f"{group}={name}",
            NO_VALUE,
            f"is not one of {', '.join(options(group, folders))}",
            did_you_mean(name, options(group, folders)),
        )
    elif missing := re.search(r"Cannot find primary config '([^']+)'", str(error)):
        known = sorted(file.stem for file in sweeps_dir().glob("*.yaml"))
        yield Problem(
            "--config-name",
            missing.group(1),
            f"is not one of {', '.join(known)}",
            did_you_mean(missing.group(1), known),
        )


def _first_line(error: BaseException) -> str:
    return (
        HYDRA_ADVICE.sub("", str(error)).strip().splitlines()[0]
        if str(error).strip()
        else type(error).__name__
    )
