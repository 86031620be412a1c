"""`StudySweeper`: the Hydra sweeper behind `-m`. It proposes trials, has them run, and keeps the account."""

import math
import os
import shlex
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from itertools import groupby
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from llmf_hydra.config import compose
from llmf_hydra.config.groups.tracking import TrackingConfig
from llmf_hydra.config.overrides import problems
from llmf_hydra.config.schema import Config
from llmf_hydra.config.secrets import masked_text, masked_word
from llmf_hydra.errors import DONE, FAILED, INTERRUPTED, NO_VALUE, Problem, Refused
from llmf_hydra.runs import disk, imports, processes, warm
from llmf_hydra.runs.manifest import cores
from llmf_hydra.sweeps import (
    account,
    command,
    constraints,
    inheritance,
    plan,
    proposals,
    repeats,
    settings,
    space,
)
from llmf_hydra.sweeps.place import Place
from llmf_hydra.sweeps.progress import StudyBar
from llmf_hydra.sweeps.settings import SweeperSettings
from llmf_hydra.sweeps.storage import open_storage, url_of
from llmf_hydra.sweeps.study import Claim, Objectives, Record, Study, alone, identity
from llmf_hydra.sweeps.trials import Interrupts, Outcome, Pool, failure, outcome

ADAPTIVE = ("tpe", "cmaes")  # samplers that learn from the trials before
SUBFOLDER = "${hydra.job.num}"  # in conf/config.yaml
THREADS, DEVICES = "launch.omp_num_threads", "launch.cuda_visible_devices"


class SweepFailed(RuntimeError):
    """At least one trial did not end as done; carries the exit code of the sweep."""

    def __init__(self, code: int):
        self.code = code
        super().__init__(f"exit code {code}")


class StudySweeper(Sweeper):
    """Makes a study of the overrides, or goes on with the one that the folder or the storage holds."""

    def __init__(self, **_: Any):
        self.config: DictConfig | None = None
        self.context: HydraContext | None = None
        self.launcher: Launcher | None = None
        self._tries: Counter[int] = Counter()  # of each trial, how often it failed
        self._bar = StudyBar()

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config, self.context = config, hydra_context
        self._own_launcher = config.hydra.runtime.choices["hydra/launcher"] == "basic"
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> list[Record]:
        """Run all trials; raises SweepFailed with exit code 1 if one failed, 130 if the user stopped it.

        Raises Refused, before anything is written, where the study is wrong or the folder holds another one.
        """
        if self.config is None or self.launcher is None or self.context is None:
            raise RuntimeError("setup comes before sweep")
        self.settings = settings.read(self.config)
        loader, self._name = self.context.config_loader, str(self.config.hydra.job.config_name)
        words = [*_params(self.settings), *arguments]
        found = problems(words[: len(words) - len(arguments)], loader)
        if found:
            raise Refused(found)
        self.space = space.read(words, loader, self.settings.seed)
        self._refuse_secrets()
        self._refuse_subfolders()
        _, base = compose.settled(loader, self._name, list(self.space.fixed))
        self._settle(base)
        proposals.known_beforehand(self.settings, self.space)  # refuses a grid that has no end
        self.folder = Path(str(self.config.hydra.sweep.dir)).expanduser().absolute()
        try:
            self.study = self._open(base)
        except OSError as error:
            if (reason := disk.full(error, self.folder)) is None:
                raise
            what = f"cannot be written: {reason}"
            raise Refused(
                [Problem("hydra.sweep.dir", self.folder, what, "make room, or name another")]
            ) from error
        try:
            return self._run()
        except OSError as error:
            if (reason := disk.full(error, self.folder)) is None:
                raise
            again = (
                f"make room, then go on with: llmf sweep resume {shlex.quote(os.path.relpath(self.folder))}"
            )
            print(f"failed: {self.folder} cannot be written: {reason}; {again}", file=sys.stderr)
            raise SweepFailed(FAILED) from error

    def _refuse_secrets(self) -> None:
        for key in self.space.described():
            if masked_word(f"{key}=value") != f"{key}=value":
                what = "is a secret, and a study writes down what it varies"
                raise Refused([Problem(key, NO_VALUE, what, "give it once")])

    def _refuse_subfolders(self) -> None:
        """The ledger, and whoever looks at the study, finds a trial's folder by its number."""
        assert self.config is not None  # set up
        given: Any = OmegaConf.to_container(self.config.hydra.sweep, resolve=False)
        if given["subdir"] != SUBFOLDER:
            what, remedy = "is not free: a trial's folder has the trial's number", "leave it out"
            raise Refused([Problem("hydra.sweep.subdir", given["subdir"], what, remedy)])

    def _settle(self, base: DictConfig) -> None:
        self.objectives = _objectives(self.settings, base)
        self.constraints = constraints.read(self.settings.constraints)
        named = self.settings.objectives or base.tracking.objective or self.settings.sampler in ADAPTIVE
        self._must_have_values = bool(named) and base.job.name == "train"
        self._threads: list[str] = []
        if (
            self.settings.n_jobs > 1
            and base.launch.omp_num_threads is None
            and "OMP_NUM_THREADS" not in os.environ
        ):
            self._threads = [f"{THREADS}={max(1, cores() // self.settings.n_jobs)}"]
        self._gpus = [] if base.launch.cuda_visible_devices is not None else plan.gpus()
        self._launch: Any = OmegaConf.to_object(base.launch)
        self._imports = imports.environment(base)
        self._tracking: TrackingConfig = OmegaConf.to_object(base.tracking)  # type: ignore[assignment]
        if self._threads:
            self._launch.omp_num_threads = int(self._threads[0].partition("=")[2])
        if self.settings.pruner != "none" and not self._own_launcher:
            what = "needs a launcher of ours, which tells trials where they report to"
            raise Refused(
                [Problem("hydra.sweeper.pruner", self.settings.pruner, what, "leave hydra/launcher out")]
            )

    def _open(self, base: DictConfig) -> Study:
        """The study, new or gone on with, and its files in the folder."""
        assert self.config is not None  # set up
        name = self.settings.study_name or self.folder.name
        url = url_of(self.settings.storage, self.folder)
        self.inherits = inheritance.of(base, self._files_are_read_by(base))
        if self.settings.storage is not None:
            with alone(url, name):
                open_storage(url)  # before the folder is made
        planned = plan.of(self.settings, self.space, self.objectives, self.inherits)
        resumed = plan.claim_folder(self.folder, url, name)
        study = Study.open(url, name, self.settings, self.space, self.objectives, planned)
        inheritance.check(study.plan["inherits"], self.inherits, self.settings.allow_changes)
        plan.write(self.folder, self.config, study.plan, url, name, resumed=resumed)
        study.reopen()
        return study

    def _files_are_read_by(self, base: DictConfig) -> Iterator[Config]:
        """Configs that between them name every file that a trial reads: with each value of what names files."""
        assert self.context is not None  # set up
        loader = self.context.config_loader
        combinations = self.space.naming_files()
        if not combinations:
            yield compose.typed(base)
        for words in combinations:
            with suppress(Refused, *compose.EXPECTED):  # that trial will be told
                yield compose.typed(compose.settled(loader, self._name, [*self.space.fixed, *words])[1])

    def _run(self) -> list[Record]:
        records = self._report()
        left = sum(record.status not in ("done", "pruned", "refused") for record in records)
        what = (
            f"study of {len(records)} trials"
            if left == len(records)
            else f"{left} of {len(records)} trials left"
        )
        print(f"{what} in {self.folder}", flush=True)
        stopped = False
        with self._warm_workers(left):
            self._bar.start(len(records), len(records) - left)
            try:
                self._forked() if self._own_launcher else self._launched()
            except KeyboardInterrupt:
                stopped = True
            finally:
                self._bar.close()
        records = self._report()
        print(account.table(records, self.objectives))
        for line in plan.closing(records, self.objectives, self._flags()):
            print(line)
        for line in repeats.closing_lines(records, self.objectives):
            print(masked_text(line))
        account.close_tracked(self.folder, self._tracking, records, stopped=stopped)
        if stopped or any(
            record.status not in ("done", "pruned", "waiting", "running") for record in records
        ):
            raise SweepFailed(INTERRUPTED if stopped else FAILED)
        return records

    def _report(self) -> list[Record]:
        records = plan.located(self.study.records(), self.folder)
        account.write(self.folder, self.study.name, self.objectives, records)
        return records

    def _warm_workers(self, trials: int) -> AbstractContextManager[None]:
        """A server from which the trials' workers are forked, where there is more than one."""
        if trials < 2:
            return nullcontext()
        return warm.server(processes.launch_environment(self._launch, os.environ) | self._imports)

    def _forked(self) -> None:
        """Run trials in forks of this process, `n_jobs` at once."""
        pool, end = Pool(self.settings.n_jobs), self._end_of_time()
        try:
            with Interrupts() as interrupts:
                more = True
                while more or pool:
                    interrupts.check()
                    while more and pool.slot is not None:
                        claim = self._claim(end)
                        more = claim is not None
                        if claim is not None:
                            self._start(pool, claim)
                    for claim, ended in pool.ended() if pool else ():
                        if self._ended(claim, ended):
                            self._start(pool, claim)
        except KeyboardInterrupt:
            self._stop(pool)
            raise
        except OSError:  # the ledger can't be written: a full disk
            pool.send(signal.SIGTERM)
            while pool:
                list(pool.ended())
            raise

    def _stop(self, pool: Pool) -> None:
        """Have all trials save and end; a second Ctrl-C kills them."""
        pool.send(signal.SIGTERM)
        while pool:
            try:
                for claim, _ in pool.ended():
                    self.study.release(claim, "interrupted")
            except KeyboardInterrupt:
                pool.send(signal.SIGKILL)

    def _end_of_time(self) -> float:
        return time.monotonic() + self.settings.timeout if self.settings.timeout else float("inf")

    def _claim(self, end: float) -> Claim | None:
        failed = sum(record.status == "failed" for record in self.study.records())
        if self.settings.max_failures is not None and failed > self.settings.max_failures:
            self._bar.say(
                f"stopped: {failed} trials failed (hydra.sweeper.max_failures={self.settings.max_failures})"
            )
            return None
        if time.monotonic() > end:
            self._bar.say(f"stopped: the time is over (hydra.sweeper.timeout={self.settings.timeout:g} s)")
            return None
        return self.study.claim(self.settings, self.space)

    def _start(self, pool: Pool, claim: Claim) -> None:
        assert pool.slot is not None and self.context is not None
        words = self._words(claim, pool.slot)
        out = self.folder / str(claim.number)
        self._note(claim, words, out)
        self._report()
        varying = " ".join(map(masked_word, self.space.words(claim.params)[len(self.space.fixed) :]))
        self._bar.say(f"trial {claim.number}: {varying}")
        place = plan.place(self.study, claim, self.settings, self.objectives)
        pool.start(claim, lambda: self._trial(words, claim, out, place), out)

    def _note(self, claim: Claim, words: list[str], out: Path) -> None:
        told = [*map(masked_word, words)]
        self.study.note(claim, overrides=told, out=str(out), identity=identity(words, self.inherits))

    def _trial(self, words: list[str], claim: Claim, out: Path, place: Place | None) -> Outcome:
        """In the fork: one trial through Hydra's launcher."""
        assert self.launcher is not None and self.context is not None
        try:
            with place.handed() if place is not None else nullcontext():
                settled, _ = compose.settled(self.context.config_loader, self._name, words)
                (result,) = self.launcher.launch([settled], initial_job_idx=claim.number)
            return outcome(result)
        except (Exception, KeyboardInterrupt) as error:
            return failure(error, out)

    def _words(self, claim: Claim, slot: int) -> list[str]:
        """The overrides of a trial, with its share of the machine."""
        share = list(self._threads)
        if self._gpus and self.settings.n_jobs > 1:
            share.append(f"{DEVICES}='{self._gpus[slot % len(self._gpus)]}'")
        return [*self.space.words(claim.params), *share]

    def _ended(self, claim: Claim, ended: Outcome) -> bool:
        """Write down how a trial ended; returns whether it is to be started again."""
        if ended.report:
            self._bar.say(ended.report, error=True)
        if ended.status == "killed":
            self.study.release(claim, ended.reason)
            return False
        self._tries[claim.number] += ended.status == "failed"
        if ended.status == "failed" and self._tries[claim.number] <= self.settings.retries:
            self._bar.say(f"trial {claim.number}: {ended.reason}; tried again")
            return True
        self._end(claim, ended)
        return False

    def _end(self, claim: Claim, ended: Outcome) -> None:
        known = ended.values()
        names = [name for name, _ in self.objectives]
        values = [known[name] for name in names if name in known] if ended.code == DONE else []
        lacking = [name for name in names if name not in known]
        status, reason = ended.status, ended.reason
        if ended.code == DONE and lacking and self._must_have_values:
            status, values = "failed", []
            reason = f"{', '.join(lacking)} was never logged; logged are {', '.join(sorted(known)) or 'none'}"
        if ended.code == DONE and (nan := [name for name in names if math.isnan(known.get(name, 0.0))]):
            status, values, reason = "failed", [], f"{', '.join(nan)} is not a number"
        if lacking:
            values = []
        broken = [entry.broken_by(known) for entry in self.constraints] if values else []
        self.study.end(claim, status, values=values, broken=broken, code=ended.code, reason=reason)
        records = self._report()
        (record,) = (record for record in records if record.number == claim.number)
        over = sum(record.status in ("done", "pruned", "refused", "failed") for record in records)
        self._bar.say(f"trial {claim.number}: {account.outcome(record)}  ({over}/{len(records)})")
        best = account.best(records, self.objectives)
        self._bar.advance(None if best is None else best.value)

    def _launched(self) -> None:
        """Run trials by another launcher of Hydra's, which gets all that are known beforehand at once."""
        assert self.launcher is not None and self.context is not None
        adaptive = self.settings.sampler in ADAPTIVE
        end = self._end_of_time()
        while claims := list(
            self._batch(self.settings.n_jobs if adaptive else len(self.study.records()), end)
        ):
            for _, group in groupby(enumerate(claims), lambda item: item[1].number - item[0]):
                batch = [claim for _, claim in group]
                words = []
                for claim in batch:
                    own = self.space.words(claim.params)
                    words.append(compose.settled(self.context.config_loader, self._name, own)[0])
                    self._note(claim, own, self.folder / str(claim.number))
                results = self.launcher.launch(words, initial_job_idx=batch[0].number)
                for claim, result in zip(batch, results, strict=True):
                    self._ended(claim, outcome(result))

    def _batch(self, size: int, end: float) -> Iterator[Claim]:
        for _ in range(size):
            claim = self._claim(end)
            if claim is None:
                return
            yield claim

    def _flags(self) -> list[str]:
        assert self.config is not None  # set up
        return command.flags(self._name, self.config.hydra.runtime.config_sources)


def _params(given: SweeperSettings) -> list[str]:
    """The overrides that a study's file holds."""
    return [f"{key}={value}" for key, value in (given.params or {}).items()]


def _objectives(given: SweeperSettings, base: DictConfig) -> Objectives:
    if given.objectives:
        named = given.objectives
    else:
        named = {str(base.tracking.objective or "objective"): str(base.tracking.direction)}
    return tuple(
        (name, "maximize" if direction == "maximize" else "minimize") for name, direction in named.items()
    )
