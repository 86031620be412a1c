"""The launcher: compose, check, write the run folder down, start the worker. It never imports torch."""

import os
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra
from hydra import version
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_automatic_config_search_path, get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode, TaskFunction
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from llmf_hydra import paths
from llmf_hydra.config import composition, overrides, record, secrets, store
from llmf_hydra.config.schema import Config
from llmf_hydra.errors import DONE, INTERRUPTED, REFUSED, Problem, Refused, RunFailed
from llmf_hydra.runs import folder as runs
from llmf_hydra.runs import processes as process
from llmf_hydra.runs import ranks
from llmf_hydra.runs.manifest import first_manifest
from llmf_hydra.runs.opening import opening
from llmf_hydra.sweeps import grid

COMMAND = Path(sys.argv[0]).name  # before Hydra is given a name of ours


def main(argv: list[str]) -> int:
    """Run a command line of overrides and Hydra's flags; returns the exit code."""
    store.register()
    grid.register()
    secrets.learn_words(argv)
    args = get_args_parser().parse_intermixed_args(argv)
    flags = [word for word in argv if word not in args.overrides]
    folders = store.conf_dirs(args.config_dir)
    try:
        found = overrides.problems(args.overrides, folders)
        if found:
            raise Refused(found)
        name = args.config_name or "config"
        if not args.multirun and (name == "config" or not composition.is_sweep(args.overrides, name)):
            args.overrides = composition.settled(
                args.overrides, name
            )  # of a sweep the sweeper does it, trial by trial
        return _enter_hydra(args, flags + args.overrides)  # Hydra wants the overrides last
    except Refused as refused:
        print(secrets.masked_text(refused.report()), file=sys.stderr)
        return REFUSED
    except (RunFailed, grid.SweepFailed) as failed:
        return failed.code
    except KeyboardInterrupt:
        return INTERRUPTED
    except (HydraException, OmegaConfBaseException) as error:
        print(secrets.masked_text(Refused(composition.problems(error, folders)).report()), file=sys.stderr)
        return REFUSED


def _is_one_run(args: Namespace) -> bool:
    """Whether the words alone show that this is one run: no flag, and nothing chosen that could make it a sweep."""
    flags = {name: value for name, value in vars(args).items() if name != "overrides" and value}
    from_files = paths.user_conf_dir() or any(
        word.startswith(("experiment=", "hydra.mode=")) for word in args.overrides
    )
    return not flags and not from_files


def _run_once(task: TaskFunction, words: list[str]) -> None:
    """What `hydra.main` does for one run, without composing everything twice to find out that it is one."""
    search_path = create_automatic_config_search_path(None, None, str(paths.conf_dir()))
    version.setbase("1.3")
    engine = Hydra.create_main_hydra2(task_name="llmf-hydra", config_search_path=search_path)
    try:
        engine.run(config_name="config", task_function=task, overrides=[*words, "hydra.mode=RUN"])
    finally:
        GlobalHydra.instance().clear()


def _enter_hydra(args: Namespace, argv: list[str]) -> int:
    """Hand the words to Hydra, which composes and calls `_run` once a trial; raises what that raised."""
    given, full_error = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = ["llmf-hydra", *argv]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra's own errors come to us instead of being printed
    ended: list[Exception] = []

    def task(composed: DictConfig) -> float | None:
        try:
            return _run(composed)
        except (Refused, RunFailed) as error:
            if _sweep() is not None:
                raise  # the sweeper's to count
            ended.append(error)  # raised below: Hydra would print words of its own before it raises
            return None

    try:
        if _is_one_run(args):
            _run_once(task, args.overrides)
        else:
            hydra.main(version_base="1.3", config_path=str(paths.conf_dir()), config_name="config")(task)()
    finally:
        sys.argv = given
        os.environ.pop("HYDRA_FULL_ERROR")
        if full_error is not None:
            os.environ["HYDRA_FULL_ERROR"] = full_error
    for error in ended:
        raise error
    return DONE


def _run(composed: DictConfig) -> float | None:
    """One run: a typed config, checked; a folder of its own; a worker; the objective for the sweeper."""
    out = Path(HydraConfig.get().runtime.output_dir)
    try:
        cfg = composition.typed(composed)
        checked(cfg)
        sweep = _sweep()
        runs.create(out, record.dump(cfg), first_manifest(cfg, sys.argv[1:], sweep))
    except Refused:
        _remove_empty(out)
        raise
    if sweep is None:
        print(secrets.masked_text(opening(cfg, out)), flush=True)
    code = process.run_worker(out, cfg, quiet=sweep is not None)
    if code == REFUSED:
        process.remove_refused(out)
    if code != DONE:
        raise RunFailed(code)
    objective: dict[str, Any] | None = runs.read_manifest(out).get("objective")
    return None if objective is None else objective["value"]


def checked(cfg: Config) -> None:
    """Raise Refused with every problem that can be seen without torch."""
    from llmf_hydra import refusals  # here, since `--cfg job` and a typo have no need of it

    shipped = store.shipped_values(HydraConfig.get().runtime.choices)
    found = [*refusals.problems(cfg, shipped), *_already_started()]
    if not cfg.launch.enable_short_console and COMMAND == "llmf":
        found.append(
            Problem("launch.enable_short_console", False, "the short command is off", "use llmf-hydra")
        )
    if found:
        raise Refused(found)
    if cfg.launch.allow_extra_args:
        for idle in refusals.without_effect(cfg, shipped):
            print(secrets.masked_text(f"warning: {idle}"), file=sys.stderr)


def _already_started() -> Iterator[Problem]:
    if ranks.world_size() > 1:
        what = "this command was itself started in several processes, of which each would begin a run"
        remedy = f"start it once, with launch.nproc_per_node={ranks.world_size()}"
        yield Problem(ranks.WORLD, ranks.world_size(), what, remedy)


def _sweep() -> dict[str, Any] | None:
    """The sweep this run is a trial of: its folder, its name and the trial's overrides; None outside of one."""
    conf = HydraConfig.get()
    if conf.mode != RunMode.MULTIRUN:
        return None
    folder = Path(conf.sweep.dir).absolute()
    return {
        "dir": str(folder),
        "name": folder.name,
        "trial": conf.job.num,
        "overrides": list(conf.overrides.task),
    }


def _remove_empty(folder: Path) -> None:
    """Take away the folder Hydra has made for a run that was refused, and parents that hold nothing else."""
    for empty in [folder, *folder.parents]:
        if empty == Path.cwd():
            return
        try:
            empty.rmdir()
        except OSError:
            return
