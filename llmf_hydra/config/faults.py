"""Why a config could not be composed, in sentences: from the types of Hydra's errors, and from the chosen files."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.core.config_loader import ConfigLoader
from hydra.errors import ConfigCompositionException, MissingConfigException
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from llmf_hydra import paths
from llmf_hydra.config.conf_files import flat_values
from llmf_hydra.config.overrides import unknown, unknown_choice, value_problem
from llmf_hydra.config.schema import GROUPS, entries
from llmf_hydra.config.switches import numbers_for_switches
from llmf_hydra.errors import NO_VALUE, Problem, did_you_mean


class WrongFile(ConfigCompositionException):
    """A config file holds values that OmegaConf would take and that mean something else."""

    def __init__(self, problems: list[Problem]):
        self.problems = problems
        super().__init__("\n".join(map(str, problems)))


_read: dict[Path, tuple[tuple[int, ...] | None, ConfigResult]] = {}


class NamingSource(FileConfigSource):
    """A folder of configs that says which of its files can't be taken, where Hydra's own errors name none.

    A command composes several times, of the same files: each is read once, unless it has changed."""

    def load_config(self, config_path: str) -> ConfigResult:
        """The content of a file; raises WrongFile for one that is not UTF-8, contains itself, or holds no mapping."""
        file = Path(self.path, self._normalize_file_name(config_path))
        version = _version(file)
        known = _read.get(file)
        if known is None or known[0] != version:
            known = _read[file] = version, self._read(file, config_path)
        return copy.deepcopy(known[1])  # Hydra takes the defaults list out of it, and sets values in it

    def _read(self, file: Path, config_path: str) -> ConfigResult:
        try:
            loaded = super().load_config(config_path)
        except UnicodeDecodeError as error:
            byte = error.object[error.start]
            what = f"is not UTF-8 (byte 0x{byte:02x} at {error.start})"
            raise WrongFile([Problem(str(file), NO_VALUE, what, "save the file as UTF-8")]) from error
        except RecursionError as error:
            what = "is nested too deeply, or an alias in it contains itself"
            raise WrongFile([Problem(str(file), NO_VALUE, what)]) from error
        if not isinstance(loaded.config, DictConfig):
            raise WrongFile([Problem(str(file), NO_VALUE, "holds a list, not keys and values")])
        return loaded


def _version(file: Path) -> tuple[int, ...] | None:
    """What changes when a file is written anew; None where there is none."""
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def refuse_numbers_for_switches(content: DictConfig, file: str) -> None:
    """Raise WrongFile where a loaded config says `bf16: 1`."""
    groups = {group: _container(content, group) for group in GROUPS if group in content}
    found = numbers_for_switches(groups, file)
    if found:
        raise WrongFile(found)


def _container(content: DictConfig, group: str) -> Any:
    node = content._get_node(group)
    return OmegaConf.to_container(node) if isinstance(node, DictConfig) else None


def problems(
    error: BaseException, loader: ConfigLoader, config_name: str, overrides: list[str]
) -> list[Problem]:
    """What is wrong in the files that were chosen, or else the error in its own words."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return [_missing(error.missing_cfg_file, loader, config_name)]
    if isinstance(error, yaml.YAMLError):
        return [_unreadable(error)]
    if isinstance(error, OSError) and error.strerror:
        return [Problem(str(error.filename or "file"), NO_VALUE, error.strerror)]
    if isinstance(error, RecursionError):
        return [Problem("command line", NO_VALUE, "is nested too deeply")]
    found: list[Problem] = []
    if isinstance(error, ConfigCompositionException):
        found = list(_wrong_in_files(loader, config_name, overrides))
    if not found and isinstance(error, WrongFile):
        found = error.problems
    return found or [_in_own_words(error)]


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type where it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _in_own_words(error: BaseException) -> Problem:
    cause = error.__cause__
    if isinstance(cause, OmegaConfBaseException):
        key = cause.full_key or str(cause.key or "config")
        return Problem(key, NO_VALUE, f"the config cannot be composed: {first_line(cause)}")
    return Problem(first_line(error), NO_VALUE, "the config cannot be composed")


def _missing(file: str, loader: ConfigLoader, config_name: str) -> Problem:
    """A choice that no folder holds, or a primary config that isn't there, with the nearest name."""
    if file == config_name:
        known = sorted(path.stem for path in paths.sweeps_dir().glob("*.yaml"))
        return Problem("--config-name", file, f"is not one of {', '.join(known)}", did_you_mean(file, known))
    group, _, name = file.rpartition("/")
    return unknown_choice(group, name, loader.get_group_options(group))


def _unreadable(error: yaml.YAMLError) -> Problem:
    """A file that isn't YAML: its name, line and column."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}"
        return Problem(mark.name, NO_VALUE, f"is not readable YAML: {error.problem} ({where})")
    return Problem(
        str(getattr(error, "name", "a config file")), NO_VALUE, f"is not readable YAML: {first_line(error)}"
    )


def _wrong_in_files(loader: ConfigLoader, config_name: str, overrides: list[str]) -> Iterator[Problem]:
    """Unknown keys and wrong values in the chosen files of the user's; the package's own are tested."""
    try:
        chosen = loader.compute_defaults_list(config_name, overrides, RunMode.MULTIRUN).defaults
    except Exception:  # it is the list itself that is wrong: the first error says so
        return
    folders = [Path(source.path) for source in loader.get_sources() if source.scheme() == "file"]
    for default in chosen:
        files = (folder / f"{default.config_path}.yaml" for folder in folders)
        file = next((file for file in files if file.is_file()), None)
        if file is not None and not file.is_relative_to(paths.conf_dir()):
            yield from _wrong_in(file, default.package or "")


def _wrong_in(file: Path, package: str) -> Iterator[Problem]:
    for key, value in flat_values(file, package).items():
        entry = entries().get(key)
        found = unknown(key) if entry is None else filter(None, [value_problem(entry, value)])
        for problem in found:
            yield Problem(f"{problem.key} (in {file})", value, problem.what, problem.remedy)
