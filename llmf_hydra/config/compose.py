"""The seam to Hydra: from the words of a command line to a composed config, and to the runs it starts.

Beside it only `flags.py` (its own words), `overrides.py` (its grammar), `faults.py` (its errors) and `sweeps/` (its
plugins) know Hydra.
"""

import copy
import io
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import yaml
from hydra import version
from hydra._internal.callbacks import Callbacks
from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.config_repository import ConfigRepository, IConfigRepository
from hydra._internal.hydra import Hydra
from hydra._internal.utils import get_args_parser
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.default_element import ResultDefault
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus, run_job
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.types import HydraContext, RunMode
from omegaconf import Container, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from llmf_hydra import paths
from llmf_hydra.config import faults, flags, from_run, home, implied, overrides
from llmf_hydra.config.flags import PRIMARY
from llmf_hydra.config.overrides import SEARCH_PATH
from llmf_hydra.config.param import set_in_environment
from llmf_hydra.config.quoting import quoted_word
from llmf_hydra.config.rewards import modules
from llmf_hydra.config.schema import GROUPS, Config, entries
from llmf_hydra.config.secrets import masked_text, masked_tree, masked_word
from llmf_hydra.errors import NO_VALUE, Problem, Refused, did_you_mean

Task = Callable[[DictConfig], float | None]
SCHEMA = "schema"  # first in the defaults list of conf/config.yaml
PROGRAM = "llmf_hydra"
FULL_ERROR = "HYDRA_FULL_ERROR"  # Hydra's own switch: tracebacks instead of sentences
EXPECTED = (HydraException, OmegaConfBaseException, yaml.YAMLError, OSError, ValueError, RecursionError)


class _OurSearchPath(SearchPathPlugin):
    """The user's own conf folder goes before the shipped one; the studies come after it."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        user = paths.user_conf_dir()
        if user is not None:
            search_path.prepend("llmf-conf", f"file://{user}")
        search_path.append("llmf-sweeps", f"file://{paths.sweeps_dir()}")


class _Repository(ConfigRepository):
    """Where the configs are. Hydra copies it at each composition, to give the copy other sources."""

    def initialize_sources(self, config_search_path: ConfigSearchPath) -> None:
        super().initialize_sources(config_search_path)
        self.sources = [
            faults.NamingSource(source.provider, f"file://{source.path}")
            if source.scheme() == "file"
            else source
            for source in self.sources
        ]

    def __deepcopy__(self, memo: dict[int, object]) -> "_Repository":
        """A copy with its own list of the same sources: one of them holds the schema, which takes long to copy."""
        copied = copy.copy(self)
        copied.sources = list(self.sources)
        return copied


class _Loader(ConfigLoaderImpl):
    """Hydra's loader, which names files that can't be read and refuses what OmegaConf would take for something else."""

    def __init__(self, config_search_path: ConfigSearchPath):
        super().__init__(config_search_path)
        self.repository = _Repository(config_search_path)

    def _load_single_config(self, default: ResultDefault, repo: IConfigRepository) -> ConfigResult:
        loaded = super()._load_single_config(default, repo)
        if isinstance(loaded.config, DictConfig) and not loaded.path.startswith(
            f"file://{paths.conf_dir()}/"
        ):
            faults.refuse_numbers_for_switches(
                loaded.config, f"{loaded.path.removeprefix('file://')}/{default.config_path}.yaml"
            )
        return loaded


def register() -> None:
    """Make the schema, the search path and the resolver known to Hydra. Safe to call twice."""
    version.setbase("1.3")
    if f"{SCHEMA}.yaml" not in ConfigStore.instance().repo:
        ConfigStore.instance().store(name=SCHEMA, node=Config)
    Plugins.instance().register(_OurSearchPath)
    OmegaConf.register_new_resolver("run_id", lambda: secrets.token_hex(3), use_cache=True, replace=True)


class CommandLine:
    """One command line: Hydra's flags, the overrides, and what is composed from them."""

    def __init__(self, words: Sequence[str]):
        """Read the words. Raises Refused for a flag that doesn't exist or a folder that isn't there."""
        register()
        self._parser = get_args_parser()
        self.flags = flags.read(self._parser, words)
        self.overrides = [
            quoted_word(home.expanded_word(from_run.long_word(overrides.without_plus(word))))
            for word in self.flags.overrides
        ]
        self.config_name: str = self.flags.config_name or PRIMARY
        self.loader = _Loader(flags.search_path_of(self.flags))
        self._hydra = Hydra(task_name=PROGRAM, config_loader=self.loader)

    @property
    def asks(self) -> bool:
        """Whether one of Hydra's flags asks for an answer instead of a run."""
        flags = self.flags
        return bool(flags.cfg or flags.info or flags.hydra_help or flags.shell_completion)

    def check(self) -> None:
        """Raise Refused with everything that is wrong in the words themselves."""
        if self.flags.resolve and not self.flags.cfg:
            raise Refused([Problem("--resolve", NO_VALUE, "resolves what --cfg shows", "add --cfg job")])
        if self.flags.experimental_rerun:
            raise Refused(
                [Problem("--experimental-rerun", NO_VALUE, "is not supported", "see `llmf resume`")]
            )
        if not self.flags.shell_completion:
            found = overrides.problems(self.overrides, self.loader)
            if found:
                raise Refused([*self._search_path_in_file(), *found])

    def _search_path_in_file(self) -> Iterator[Problem]:
        """The refusal of a `hydra.searchpath` in the primary config: it may be why a choice isn't known."""
        primary = self.loader.repository.load_config(self.config_name)
        folders = OmegaConf.select(primary.config, SEARCH_PATH) if primary is not None else None
        if folders:
            yield overrides.idle_search_path(f"{SEARCH_PATH} (in {self.config_name}.yaml)", folders)

    def without_wrong_values(self) -> tuple[Config, set[str], set[str]] | None:
        """The config without the words whose values are wrong, the keys of those words, and the keys of the others.

        None where a word is wrong in another way, or is a choice: all else depends on it.
        """
        wrong: set[str] = set()
        sound: list[str] = []
        for word in self.overrides:
            keys = {problem.key for problem in overrides.problems([word], self.loader)}
            wrong |= keys
            sound += [] if keys else [word]
        if self.asks or self.flags.multirun or overrides.swept(sound) or not wrong <= entries().keys():
            return None
        try:
            cfg = typed(settled(self.loader, self.config_name, sound)[1])
        except (Refused, *EXPECTED):
            return None
        return cfg, wrong, {word.partition("=")[0].lstrip("+") for word in sound}

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Inside, an error of composing or of the file system becomes a refusal that says what is at fault."""
        try:
            yield
        except Refused:
            raise
        except EXPECTED as error:
            if os.environ.get(FULL_ERROR) == "1":
                raise
            raise Refused(faults.problems(error, self.loader, self.config_name, self.overrides)) from error

    def compose(self) -> DictConfig:
        """The config of one run, or what all trials of a sweep share."""
        config = self._hydra.compose_config(
            self.config_name, self.overrides, RunMode.RUN, validate_sweep_overrides=False
        )
        if self.flags.multirun:
            config.hydra.mode = RunMode.MULTIRUN
        swept = overrides.swept(self.overrides)
        if config.hydra.mode == RunMode.MULTIRUN and not self.asks:
            _check_names(config)
            return config  # each trial is composed on its own
        if swept and config.hydra.mode != RunMode.MULTIRUN:
            raise Refused(map(overrides.several_values, swept))
        mode = config.hydra.mode
        _, config = settled(self.loader, self.config_name, self._unswept(), None if swept else config)
        _check_names(config)
        config.hydra.mode = mode
        return config

    def run(self, config: DictConfig, out: Path, task: Task) -> None:
        """Run a task once, in the folder `out`, as Hydra runs it; raises what the task raised."""
        config.hydra.mode = RunMode.RUN
        config.hydra.run.dir = str(out)
        callbacks = Callbacks(config)
        callbacks.on_run_start(config=config, config_name=self.config_name)
        ended = run_job(
            task_function=task,
            config=config,
            job_dir_key="hydra.run.dir",
            job_subdir_key=None,
            hydra_context=HydraContext(config_loader=self.loader, callbacks=callbacks),
        )
        callbacks.on_run_end(config=config, config_name=self.config_name, job_return=ended)
        if ended.status == JobStatus.FAILED:
            raise ended._return_value  # the public property prints before it raises

    def sweep(self, task: Task) -> None:
        """Hand the words to the sweeper, which runs the task once per trial."""
        self._hydra.multirun(self.config_name, task, [*self.overrides, "hydra.mode=MULTIRUN"])

    def answer(self) -> None:
        """Print what a flag asks for: the config, Hydra's account of it, its help or shell completion."""
        if self.flags.shell_completion:
            with _named(Path(sys.argv[0]).name):
                self._hydra.shell_completion(self.config_name, self.overrides)
        elif self.flags.hydra_help:
            with _named(Path(sys.argv[0]).name):
                self._hydra.hydra_help(self.config_name, self._parser, self.flags)
        elif self.flags.info:
            with redirect_stdout(io.StringIO()) as told:
                self._hydra.show_info(self.flags.info, self.config_name, self._unswept(), RunMode.MULTIRUN)
            print(masked_text(told.getvalue()), end="")
        else:
            self._show_config()

    def _unswept(self) -> list[str]:
        """The overrides without those of several values, which every trial sets on its own."""
        swept = overrides.swept(self.overrides)
        return [word for word in self.overrides if word not in swept]

    def _show_config(self) -> None:
        config = self.compose()
        HydraConfig.instance().set_config(config)
        swept = overrides.swept(self.overrides)
        if swept:
            print(f"# each trial also sets one of: {' '.join(map(masked_word, swept))}")
        shown: Any = self._hydra.get_sanitized_cfg(config, self.flags.cfg)
        package = self.flags.package
        if package not in (None, "_global_"):
            shown = OmegaConf.select(shown, package)
            if shown is None:
                raise Refused(
                    [Problem("--package", package, "is not in the config", did_you_mean(package, GROUPS))]
                )
            print(f"# @package {package}")
        if not isinstance(shown, Container):
            print(masked_text(f"{package}={shown}").partition("=")[2])
            return
        if self.flags.resolve:
            OmegaConf.resolve(shown)
        print(OmegaConf.to_yaml(OmegaConf.create(masked_tree(OmegaConf.to_container(shown)))), end="")


def settled(
    loader: ConfigLoader, config_name: str, words: Sequence[str], composed: DictConfig | None = None
) -> tuple[list[str], DictConfig]:
    """The overrides of a run or a trial with those that they imply, and what is composed from them all.

    `composed` is what the words alone are composed to, where that is known.
    """
    return implied.settled(
        list(words),
        lambda given: loader.load_configuration(config_name, given, RunMode.RUN),
        _set_values,
        composed,
    )


def _set_values(composed: DictConfig, words: list[str]) -> None:
    """Do with overrides of values what Hydra does with them once it has composed a config."""
    parser = OverridesParser.create()
    ConfigLoaderImpl._apply_overrides_to_config(parser.parse_overrides(words), composed)
    of_hydra = composed.hydra
    of_hydra.overrides.task.extend(words)
    named = of_hydra.job.config.override_dirname
    of_hydra.job.override_dirname = get_overrides_dirname(
        parser.parse_overrides(list(of_hydra.overrides.task)),
        list(named.exclude_keys),
        named.item_sep,
        named.kv_sep,
    )


def composed(words: Sequence[str], config_name: str = PRIMARY, *, implied_too: bool = True) -> DictConfig:
    """What a command line of these overrides is composed to, with Hydra's own part; raises Refused where it can't be.

    Without `implied_too`, the overrides stand alone: no demo is chosen for them.
    """
    line = CommandLine(["--config-name", config_name, *words])
    with line.refusing():
        if implied_too:
            return line.compose()
        return line.loader.load_configuration(config_name, line.overrides, RunMode.RUN)


def typed(config: DictConfig) -> Config:
    """The typed config; raises Refused with every value that cannot be resolved or has the wrong type."""
    found = list(_unresolved(config))
    if found:
        raise Refused(found)
    groups: dict[str, Any] = {group: OmegaConf.to_object(config[group]) for group in GROUPS}
    cfg = Config(**groups)
    home.expand(cfg)
    hydra: Any = config.get("hydra") or (
        HydraConfig.get() if HydraConfig.initialized() else None
    )  # of a trial
    sources: list[Any] = hydra.runtime.config_sources if hydra is not None else []
    files = [Path(source.path) for source in sources if source.schema == "file"]
    folders = [folder for folder in files if folder not in (paths.conf_dir(), paths.sweeps_dir())]
    cfg.rlhf.rewards = modules.located(cfg.rlhf.rewards, folders)
    return cfg


def _check_names(config: DictConfig) -> None:
    """Raise Refused for a file of the user's own whose `name` is no stage, method, optimizer or job, or that names
    folders of configs: the words of trials and of resumed studies would be read without them."""
    found: list[Problem] = []
    if config.hydra.searchpath:
        found.append(overrides.idle_search_path(SEARCH_PATH, config.hydra.searchpath))
    for entry in entries().values():
        if entry.is_choice and (name := config[entry.group].name) not in entry.param.choices:
            key = f"{entry.key} (in {entry.group}/{config.hydra.runtime.choices.get(entry.group)}.yaml)"
            found.append(Problem.bad_choice(key, name, entry.param.choices))
    if found:
        raise Refused(found)


def _unresolved(config: DictConfig) -> Iterator[Problem]:
    for key, entry in entries().items():
        try:
            config[entry.group][entry.name]
        except OmegaConfBaseException as error:
            raw: Any = OmegaConf.to_container(config[entry.group], resolve=False)
            if set_in_environment(entry.param):
                variable = str(entry.param.env)
                what, remedy = f"is not of type {entry.type_name}", f"change or unset {variable}"
                yield Problem(f"{key} (from {variable})", os.environ[variable], what, remedy)
            else:
                yield Problem(key, raw[entry.name], f"cannot be resolved: {faults.first_line(error)}")


@contextmanager
def _named(program: str) -> Iterator[None]:
    """Inside, the program has the name under which a shell can complete it."""
    given = sys.argv
    sys.argv = [program if program == "llmf" else "llmf-hydra", *given[1:]]
    try:
        yield
    finally:
        sys.argv = given
