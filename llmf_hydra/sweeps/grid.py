"""`GridSweeper`: the Hydra sweeper behind `-m`: every combination is tried, and one that fails stops no other."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from llmf_hydra.config import compose
from llmf_hydra.config.overrides import problems
from llmf_hydra.config.secrets import masked_text, masked_tree, masked_word
from llmf_hydra.errors import DONE, FAILED, INTERRUPTED, REFUSED, Problem, Refused, RunFailed
from llmf_hydra.runs import folder as runs
from llmf_hydra.runs import processes, warm
from llmf_hydra.runs.processes import OUTPUT
from llmf_hydra.sweeps.report import ACCOUNT, Trial, varied, write_report

MOST_TRIALS = 10_000  # of one sweep: more is a slip of the keyboard


class SweepFailed(RuntimeError):
    """At least one trial did not end as done; carries the exit code of the sweep."""

    def __init__(self, code: int):
        self.code = code
        super().__init__(f"exit code {code}")


class GridSweeper(Sweeper):
    """Expands the overrides to a grid, has each trial launched, and reports them all at the end."""

    def __init__(self, params: DictConfig | None = None):
        self.params = params
        self.config: DictConfig | None = None
        self.context: HydraContext | None = None
        self.launcher: Launcher | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config, self.context = config, hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> list[Trial]:
        """Run all trials; raises SweepFailed with exit code 1 if one failed, 130 if the user stopped it.

        Raises Refused, before anything is written, where the grid is wrong or the folder holds a sweep already.
        """
        if self.config is None or self.launcher is None or self.context is None:
            raise RuntimeError("setup comes before sweep")
        grid = self._grid(arguments, self.context, str(self.config.hydra.job.config_name))
        folder = Path(str(self.config.hydra.sweep.dir)).absolute()
        _claim(folder, self.config)
        print(f"sweep of {len(grid)} trials in {folder}")
        trials: list[Trial] = []
        stopped = False
        try:
            with self._warm_workers(len(grid)):
                for batch in _batches(grid, self.launcher):
                    for trial in self._launched(batch, len(trials), grid):
                        trials.append(trial)
                        print(f"trial {trial.number + 1}/{len(grid)}: {trial.outcome()}", flush=True)
                    write_report(folder, trials)
        except KeyboardInterrupt:
            stopped = True
            trials += _stopped(folder, grid[len(trials) :], len(trials))
        print(write_report(folder, trials))
        if stopped or any(trial.code != DONE for trial in trials):
            raise SweepFailed(INTERRUPTED if stopped else FAILED)
        return trials

    def _warm_workers(self, trials: int) -> AbstractContextManager[None]:
        """A server from which the trials' workers are forked, where there is more than one."""
        assert self.config is not None  # set up
        if trials < 2:
            return nullcontext()
        launch: Any = OmegaConf.to_object(self.config.launch)
        return warm.server(processes.launch_environment(launch, os.environ))

    def _launched(self, batch: list[list[str]], first: int, grid: list[list[str]]) -> Iterator[Trial]:
        if self.launcher is None:
            raise RuntimeError("setup comes before sweep")
        for number, overrides in enumerate(batch, first):
            print(f"trial {number + 1}/{len(grid)}: {_words(overrides, grid)}", flush=True)
        results = self.launcher.launch(batch, initial_job_idx=first)
        for number, (overrides, result) in enumerate(zip(batch, results, strict=True), first):
            yield _trial(number, overrides, result)

    def _grid(self, arguments: list[str], context: HydraContext, config_name: str) -> list[list[str]]:
        """Every combination of the overrides, as lists of words; those of a study's file come first."""
        params = [f"{key}={value}" for key, value in (self.params or {}).items()]
        found = problems(params, context.config_loader)
        if found:
            raise Refused(found)
        parsed = OverridesParser.create(context.config_loader).parse_overrides(params + arguments)
        refuse_endless(parsed)
        (batch,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
        return [compose.settled(context.config_loader, config_name, words)[0] for words in batch]


def refuse_endless(parsed: Sequence[Override]) -> None:
    """Raise Refused for words that a grid cannot try one by one: an interval, or more trials than make sense."""
    count = 1
    for override in parsed:
        if not override.is_sweep_override():
            continue
        key, _, value = str(override.input_line).partition("=")
        if not override.is_discrete_sweep():
            remedy = "list the values, or choose a sweeper that draws from it: hydra/sweeper=optuna"
            raise Refused([Problem(key, value, "is an interval, and a grid tries single values", remedy)])
        count *= sum(1 for _ in islice(override.sweep_iterator(), MOST_TRIALS + 1))
        if count > MOST_TRIALS:
            raise Refused([Problem(key, value, f"makes more than {MOST_TRIALS} trials", "give fewer values")])


def _batches(grid: list[list[str]], launcher: Launcher) -> Iterator[list[list[str]]]:
    """What is launched at once: everything, so that a launcher may run trials side by side.

    Hydra's own launcher runs them one after another anyway: one by one, each is reported when it ends.
    """
    if isinstance(launcher, BasicLauncher):
        yield from ([overrides] for overrides in grid)
    else:
        yield grid


def _claim(folder: Path, config: DictConfig) -> None:
    """Make the sweep's folder and write its config down; Refused where another sweep has left its account."""
    if (folder / ACCOUNT).exists():
        what, remedy = f"holds a sweep already ({ACCOUNT})", "name another folder"
        raise Refused([Problem("hydra.sweep.dir", folder, what, remedy)])
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refused([Problem("hydra.sweep.dir", folder, str(error.strerror))]) from error
    recorded: Any = masked_tree(OmegaConf.to_container(config))
    OmegaConf.save(OmegaConf.create(recorded), folder / "multirun.yaml")


def _words(overrides: list[str], grid: list[list[str]]) -> str:
    return " ".join(map(masked_word, varied(overrides, grid)))


def _trial(number: int, overrides: Sequence[str], result: JobReturn) -> Trial:
    conf = result.hydra_cfg
    out = Path(conf.hydra.runtime.output_dir if conf is not None else str(result.working_dir))
    value: Any = result._return_value  # the public property raises a trial's error
    if result.status == JobStatus.COMPLETED:
        return Trial(number, list(overrides), out, 0, "", value)
    if isinstance(value, Refused):
        print(masked_text(value.report()), file=sys.stderr)
        return Trial(number, list(overrides), out, REFUSED, masked_text(str(value.problems[0])), None)
    code = value.code if isinstance(value, RunFailed) else FAILED
    reason = str(value).splitlines()[0] if str(value) else type(value).__name__
    log = out / OUTPUT
    reason = masked_text(reason)
    told = f"{reason} (see {log})" if log.exists() else reason
    return Trial(number, list(overrides), out, code, told, None)


def _stopped(folder: Path, grid: list[list[str]], first: int) -> Iterator[Trial]:
    """The trials that had begun when the user stopped the sweep."""
    codes = {"done": DONE, "failed": FAILED}
    for number, overrides in enumerate(grid, first):
        out = folder / str(number)
        if (out / runs.MANIFEST).exists():
            manifest = runs.read_manifest(out)
            code = codes.get(runs.status(manifest), INTERRUPTED)
            value = (manifest.get("objective") or {}).get("value") if code == DONE else None
            yield Trial(number, overrides, out, code, "interrupted" if code == INTERRUPTED else "", value)
