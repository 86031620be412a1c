"""Every reason to refuse a run, whichever room knows it: importing this module registers them all, without torch."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from llmf_hydra.checks import (
    data,
    grpo,
    inference,
    launch,
    method,
    model,
    optimizer,
    packages,
    quantization,
    rlhf,
    tracking,
    training,
    values,
)
from llmf_hydra.checks.register import CONFIG, DISK, PHASES, Rule, broken, rules_about
from llmf_hydra.config import record
from llmf_hydra.config.schema import Config, entries
from llmf_hydra.data import checks as dataset_files
from llmf_hydra.errors import NO_VALUE, Problem, Refused
from llmf_hydra.evaluation import checks as benchmarks
from llmf_hydra.export import checks as exports
from llmf_hydra.models import checks as model_files
from llmf_hydra.models.architecture import checks as architecture
from llmf_hydra.runs import folder as runs
from llmf_hydra.training.rewards import checks as reward_files
from llmf_hydra.webui import checks as page

__all__ = ["CONFIG", "PHASES", "Rule", "check_recorded_files", "of_files", "of_values", "problems", "recorded",
           "rules_about", "unread"]  # fmt: skip
REGISTERED = (
    data,
    grpo,
    inference,
    launch,
    method,
    model,
    optimizer,
    packages,
    quantization,
    rlhf,
    tracking,
    training,
    dataset_files,
    model_files,
    architecture,
    reward_files,
    page,
    benchmarks,
    exports,
)

NAMES = {entry.key for entry in entries().values() if entry.is_choice}


def problems(
    cfg: Config, shipped: Mapping[str, object], phases: Collection[str] = PHASES, words: Iterable[str] = ()
) -> list[Problem]:
    """All problems that refuse the run, in one answer; empty if it may begin.

    `shipped` holds, by full key, what the chosen files of the package set; see `values.without_effect`. `words` are the
    overrides of the command line, among which are the choices.
    """
    found = _of_each_value(cfg)
    told = {problem.key for problem in found}
    if told & NAMES:
        return found  # other rules look up what these names stand for
    if not cfg.launch.allow_extra_args:
        found += [problem for problem in unread(cfg, shipped, words) if problem.key not in told]
    return [*found, *broken(cfg, phases, told)]


def unread(cfg: Config, shipped: Mapping[str, object], words: Iterable[str]) -> list[Problem]:
    """What the user set and chose (`words` are the overrides) that this run would not read."""
    return [*values.without_effect(cfg, shipped), *values.idle_choices(cfg, words)]


def beside(cfg: Config, wrong: Collection[str], given: Collection[str]) -> list[Problem]:
    """What else is wrong with the keys `given` on a command line of which the values of the keys `wrong` were left out.

    Rules that speak of a wrong key have no say: its value is not known.
    """
    return [problem for problem in broken(cfg, PHASES, wrong) if problem.key in given]


def of_files(cfg: Config) -> list[Problem]:
    """What is wrong with the files that a config names."""
    return list(broken(cfg, (DISK,), ()))


def of_values(cfg: Config) -> list[Problem]:
    """What this version refuses of the config of a recorded run, its files apart."""
    found = _of_each_value(cfg)
    told = {problem.key for problem in found}
    if told & NAMES:
        return found
    phases = [phase for phase in PHASES if phase != DISK]
    return [*found, *broken(cfg, phases, told)]


def recorded(out: Path, manifest: runs.Manifest) -> Config:
    """The config of a run that is to go on, its values checked again: a file can be edited or damaged.

    Raises Refused with all that is wrong, its files apart.
    """
    file = out / runs.CONFIG
    lost = record.lost(file, manifest.get("parameters") or 1)
    if lost:
        shown = f"{', '.join(lost[:3])}{f' and {len(lost) - 3} more' if len(lost) > 3 else ''}"
        what = f"lacks {shown}, which it was written with"
        raise Refused([Problem(str(file), NO_VALUE, what, "bring the file back, or begin a new run")])
    cfg = record.load(file)
    _refuse(of_values(cfg), file)
    return cfg


def check_recorded_files(out: Path, cfg: Config) -> None:
    """Raise Refused with what is wrong with the files that the config of a run names; relative paths start here."""
    _refuse(of_files(cfg), out / runs.CONFIG)


def _refuse(problems: Sequence[Problem], file: Path) -> None:
    if problems:
        raise Refused([replace(problem, key=f"{problem.key} (in {file})") for problem in problems])


def _of_each_value(cfg: Config) -> list[Problem]:
    return [*values.bad_values(cfg), *values.not_built(cfg)]
