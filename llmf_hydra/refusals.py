"""Every reason to refuse a run, whichever room knows it: importing this module registers them all, without torch."""

from collections.abc import Collection, Mapping

from llmf_hydra.checks import data, launch, method, model, packages, rlhf, tracking, training, values
from llmf_hydra.checks.register import CONFIG, DISK, PHASES, Rule, broken, rules_about
from llmf_hydra.config.schema import Config
from llmf_hydra.data import checks as dataset_files
from llmf_hydra.errors import Problem
from llmf_hydra.models import checks as model_files
from llmf_hydra.training.rl.rewards import checks as reward_files

__all__ = ["CONFIG", "PHASES", "Rule", "of_files", "of_values", "problems", "rules_about", "without_effect"]
REGISTERED = (
    data,
    launch,
    method,
    model,
    packages,
    rlhf,
    tracking,
    training,
    dataset_files,
    model_files,
    reward_files,
)

without_effect = values.without_effect


def problems(cfg: Config, shipped: Mapping[str, object], phases: Collection[str] = PHASES) -> list[Problem]:
    """All problems that refuse the run, in one answer; empty if it may begin.

    `shipped` holds, by full key, what the chosen files of the package set; see `values.without_effect`.
    """
    found = [*values.bad_values(cfg), *values.not_built(cfg)]
    told = {problem.key for problem in found}
    if not cfg.launch.allow_extra_args:
        found += [problem for problem in without_effect(cfg, shipped) if problem.key not in told]
    return [*found, *broken(cfg, phases, told)]


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
    found = [*values.bad_values(cfg), *values.not_built(cfg)]
    phases = [phase for phase in PHASES if phase != DISK]
    return [*found, *broken(cfg, phases, {problem.key for problem in found})]
