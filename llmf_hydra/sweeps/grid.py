"""`GridSweeper`: the Hydra sweeper behind `-m`: every combination is tried, and one that fails stops no other."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from llmf_hydra.config import composition
from llmf_hydra.config.secrets import masked_text, masked_tree, masked_word
from llmf_hydra.errors import DONE, FAILED, INTERRUPTED, REFUSED, Refused, RunFailed
from llmf_hydra.sweeps.report import Trial, varied, write_report


class SweepFailed(RuntimeError):
    """At least one trial did not end as done; carries the exit code of the sweep."""

    def __init__(self, code: int):
        self.code = code
        super().__init__(f"exit code {code}")


class GridSweeper(Sweeper):
    """Expands the overrides to a grid, launches each trial on its own, and reports them all at the end."""

    def __init__(self, params: DictConfig | None = None):
        self.params = params
        self.config: DictConfig | None = None
        self.launcher: Launcher | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> list[Trial]:
        """Run all trials; raises SweepFailed with exit code 1 if one failed, 130 if the user stopped it."""
        if self.config is None or self.launcher is None:
            raise RuntimeError("setup comes before sweep")
        folder = Path(str(self.config.hydra.sweep.dir))
        folder.mkdir(parents=True, exist_ok=True)
        recorded: Any = masked_tree(OmegaConf.to_container(self.config))
        OmegaConf.save(OmegaConf.create(recorded), folder / "multirun.yaml")
        grid = self._grid(arguments)
        trials: list[Trial] = []
        print(f"sweep of {len(grid)} trials in {folder}")
        for number, overrides in enumerate(grid):
            print(
                f"trial {number + 1}/{len(grid)}: {' '.join(map(masked_word, varied(overrides, grid)))}",
                flush=True,
            )
            (result,) = self.launcher.launch([overrides], initial_job_idx=number)
            trials.append(_trial(number, overrides, result))
            write_report(folder, trials)
            print(f"trial {number + 1}/{len(grid)}: {trials[-1].outcome()}", flush=True)
            if trials[-1].code == INTERRUPTED:
                break
        print(write_report(folder, trials))
        codes = {trial.code for trial in trials} - {DONE}
        if codes:
            raise SweepFailed(INTERRUPTED if INTERRUPTED in codes else FAILED)
        return trials

    def _grid(self, arguments: list[str]) -> list[list[str]]:
        """Every combination of the overrides, as lists of words; those of a study's file come first."""
        words = [f"{key}={value}" for key, value in (self.params or {}).items()] + arguments
        parsed = OverridesParser.create().parse_overrides(words)
        (batch,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
        name = str(self.config.hydra.job.config_name) if self.config is not None else "config"
        return [composition.settled(list(overrides), name) for overrides in batch]


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
    return Trial(number, list(overrides), out, code, masked_text(reason), None)


def register() -> None:
    """Make the sweeper known to Hydra's configs as `hydra/sweeper=llmf`; Hydra finds the class itself."""
    node = {"_target_": "hydra_plugins.llmf_hydra_sweeper.GridSweeper", "params": None}
    ConfigStore.instance().store(group="hydra/sweeper", name="llmf", node=node, provider="llmf_hydra")
