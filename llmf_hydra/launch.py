"""The launcher: compose, check, write the run folder down, start the worker. It never imports torch."""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from llmf_hydra.config import compose, record, secrets
from llmf_hydra.config.choices import JOBS
from llmf_hydra.config.conf_files import shipped_values
from llmf_hydra.config.schema import Config
from llmf_hydra.errors import (
    DONE,
    FAILED,
    INTERRUPTED,
    NO_VALUE,
    PRUNED,
    REFUSED,
    Problem,
    Refused,
    RunFailed,
)
from llmf_hydra.runs import folder as runs
from llmf_hydra.runs import processes, ranks
from llmf_hydra.runs.manifest import first_manifest
from llmf_hydra.runs.opening import opening
from llmf_hydra.sweeps import plan, sweeper

COMMAND = Path(sys.argv[0]).name
PATIENCE = 60.0  # seconds in which a trial whose launcher is gone has saved
STARTED = time.time()  # what is older than this is not ours to remove


def main(argv: list[str]) -> int:
    """Run a command line of overrides and Hydra's flags; returns the exit code."""
    secrets.learn_words(argv)
    try:
        _follow(argv)
    except Refused as refused:
        print(secrets.masked_text(refused.report()), file=sys.stderr)
        return REFUSED
    except (RunFailed, sweeper.SweepFailed) as failed:
        return failed.code
    except KeyboardInterrupt:
        return INTERRUPTED
    return DONE


def _follow(argv: list[str]) -> None:
    """Answer, run once, or sweep, as the words ask; raises what went wrong."""
    line = compose.CommandLine(argv)
    with line.refusing():
        check_words(line)
        if line.asks:
            line.answer()
            return
        config = line.compose()
        if config.hydra.mode == RunMode.MULTIRUN:
            _refuse_sweep_of(str(config.job.name))
            found = list(_written_by_a_launcher(argv, str(config.hydra.runtime.choices["hydra/launcher"])))
            if found:
                raise Refused(found)
            line.sweep(partial(_trial, argv))
        else:
            _run_once(line, config, argv)


def check_words(line: compose.CommandLine) -> None:
    """Raise Refused for wrong words; where only values are wrong, what the other words name is looked at too."""
    try:
        line.check()
    except Refused as refused:
        rest = line.without_wrong_values()
        if rest is None:
            raise
        from llmf_hydra import refusals

        raise Refused([*refused.problems, *refusals.beside(*rest)]) from None


def _run_once(line: compose.CommandLine, config: DictConfig, argv: list[str]) -> None:
    """One run. All that can be refused is refused before its folder is made."""
    cfg = compose.typed(config)
    checked(cfg, config.hydra)
    if JOBS[cfg.job.name].interactive:
        _answer_here(cfg)
        return
    out = Path(str(config.hydra.run.dir)).expanduser().absolute()
    made = _make(out)  # by this run, to be taken away with it
    line.run(config, out, lambda _: _start(cfg, out, argv, None, made))


def _answer_here(cfg: Config) -> None:
    """A job that answers in the terminal or on a port: in this process, which has both, and without a run folder."""
    os.environ.update(processes.environment(cfg))
    from llmf_hydra import worker  # here: the environment above is read when libraries are imported

    code = worker.interactive(cfg)
    if code != DONE:
        raise RunFailed(code)


def _make(out: Path) -> list[Path]:
    """Make the folder of a run and return what was made, the innermost first. Raises Refused where it can't be."""
    key, remedy = "hydra.run.dir", "name another folder"
    made: list[Path] = []
    try:
        if out.is_symlink() and not out.exists():
            what = f"is a symbolic link to {out.readlink()}, which is not there"
            raise Refused([Problem(key, out, what, remedy)])
        runs.check_free(out, key)
        made = [folder for folder in (out, *out.parents) if not folder.exists()]
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:  # a name that is too long; a file system that takes no folders, such as /proc
        for folder in made:
            with suppress(OSError):  # it was not made
                folder.rmdir()
        raise Refused([Problem(key, out, f"cannot be made: {error.strerror}", remedy)]) from error
    return made


def _refuse_sweep_of(job: str) -> None:
    """Raise Refused for a job that would not end by itself."""
    if JOBS[job].interactive:
        what = "answers until it is ended, and no trial after it would begin"
        raise Refused([Problem(f"job={job}", NO_VALUE, what, "leave -m out, and start one for each")])


def _written_by_a_launcher(argv: list[str], launcher: str) -> Iterator[Problem]:
    """Overrides whose secret would reach the disk: hydra-submitit-launcher pickles each trial's config."""
    for word in argv if launcher.startswith("submitit") else ():
        masked = secrets.masked_word(word)
        if masked != word:
            what = f"hydra/launcher={launcher} would write this secret to disk"
            yield Problem(masked, NO_VALUE, what, "give it in its environment variable")


def _trial(argv: list[str], composed: DictConfig) -> float | None:
    """One trial of a sweep, for Hydra's launchers: they have made its folder already."""
    conf = HydraConfig.get()
    out = Path(conf.runtime.output_dir)
    written_by_hydra = {f"{conf.job.name}.log", str(conf.output_subdir)}
    folder = Path(conf.sweep.dir).absolute()
    sweep: runs.Sweep = {
        "dir": str(folder),
        "name": folder.name,
        "trial": conf.job.num,
        "overrides": list(conf.overrides.task),
        "study": plan.unique_name(folder),
        "varied": plan.varied(folder, conf.overrides.task),
    }
    try:
        cfg = compose.typed(composed)
        _refuse_sweep_of(cfg.job.name)
        checked(cfg, conf)
        if _is_begun(out, sweep):
            return _go_on(out)
        if (out / runs.CONFIG).exists():
            runs.clear_half_made(out, record.dump(cfg))
        runs.check_free(out, "hydra.sweep.dir", apart_from=written_by_hydra)
        return _start(cfg, out, argv, sweep)
    except Refused:
        runs.remove_empty(out, since=STARTED)
        raise


def _is_begun(out: Path, sweep: runs.Sweep) -> bool:
    """Whether the folder holds this very trial of this sweep, which an earlier launcher began."""
    if not (out / runs.MANIFEST).exists():
        return False
    known = runs.read_manifest(out).get("sweep")
    told: runs.Sweep = secrets.masked_tree(sweep)
    return known is not None and _what_it_is(known) == _what_it_is(told)


def _what_it_is(sweep: runs.Sweep) -> tuple[str, int, list[str]]:
    """Name, number and words of a trial, but for those that say where it runs: its share of the machine may change."""
    words = [word for word in sweep["overrides"] if not word.startswith("launch.")]
    return sweep["name"], sweep["trial"], words


def _go_on(out: Path) -> float | None:
    """Have a trial that was stopped go on from its last checkpoint; one that is done is not run again."""
    end = time.monotonic() + PATIENCE
    while (status := runs.status(runs.read_manifest(out))) == "running" and time.monotonic() < end:
        time.sleep(0.1)  # its launcher is gone: it is saving
    if status == "running":
        raise RunFailed(FAILED, f"another process trains in {out} still")
    if status == "pruned":
        raise RunFailed(PRUNED, runs.read_manifest(out).get("reason") or "")
    if status != "done":
        from llmf_hydra import refusals

        cfg = refusals.recorded(out, runs.read_manifest(out))
        return _ended(out, processes.run_worker(out, cfg, quiet=True, resume=True))
    return _objective(out)


def _start(
    cfg: Config, out: Path, argv: list[str], sweep: runs.Sweep | None, made: Sequence[Path] = ()
) -> float | None:
    """Claim the folder, run the worker to its end, and return the objective for the sweeper."""
    runs.create(out, record.dump(cfg), first_manifest(cfg, argv, sweep))
    if sweep is None:
        print(secrets.masked_text(opening(cfg, out)), flush=True)
    code = processes.run_worker(out, cfg, quiet=sweep is not None)
    if code == REFUSED and sweep is None:  # the terminal has the reason; of a trial worker.log has it
        reason = runs.read_manifest(out).get("reason") or ""
        processes.remove_refused(out, made)
        raise RunFailed(code, reason)
    return _ended(out, code)


def _ended(out: Path, code: int) -> float | None:
    """The objective of a run that is done; raises what tells how it ended else."""
    if code == INTERRUPTED and runs.read_manifest(out)["sweep"] is not None:
        raise KeyboardInterrupt  # it ends the launcher's loop too, whichever launcher it is
    if code != DONE:
        raise RunFailed(code, runs.read_manifest(out).get("reason") or "")
    return _objective(out)


def _objective(out: Path) -> float | None:
    objective = runs.read_manifest(out).get("objective")
    return None if objective is None else objective["value"]


def checked(cfg: Config, hydra: HydraConf | DictConfig) -> None:
    """Raise Refused with every problem that can be seen without torch; `hydra` is Hydra's part of the config."""
    from llmf_hydra import refusals  # here, since `--cfg job` and a typo have no need of it

    shipped, words = shipped_values(hydra.runtime.choices), list(hydra.overrides.task)
    found = refusals.problems(cfg, shipped, words=words)
    found += _already_started()
    if not cfg.launch.enable_short_console and COMMAND == "llmf":
        found.append(
            Problem("launch.enable_short_console", False, "the short command is off", "use llmf-hydra")
        )
    if found:
        raise Refused(found)
    if cfg.launch.allow_extra_args:
        for idle in refusals.unread(cfg, shipped, words):
            print(secrets.masked_text(f"warning: {idle}"), file=sys.stderr)


def _already_started() -> Iterator[Problem]:
    if ranks.world_size() > 1:
        what = "this command was itself started in several processes, of which each would begin a run"
        remedy = f"start it once, with launch.nproc_per_node={ranks.world_size()}"
        yield Problem(ranks.WORLD, ranks.world_size(), what, remedy)
