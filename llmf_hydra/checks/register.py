"""The register of refusals: each rule with the keys it speaks of, the jobs it holds for, and its phase.

A check and `llmf explain` read the same register, so they cannot disagree. Rooms with checks of their own (dataset
files, adapter folders) register them here; `llmf_hydra.refusals` imports them all. A rule never changes a config.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from llmf_hydra.config.choices import TRAINING_JOBS
from llmf_hydra.config.schema import Config
from llmf_hydra.errors import Problem

Check = Callable[[Config], Iterator[Problem]]
CONFIG, PACKAGES, DISK = PHASES = ("config", "packages", "disk")  # in order of their cost


@dataclass(frozen=True)
class Rule:
    """A check on the whole config, and the keys it speaks of."""

    keys: tuple[str, ...]
    sentence: str
    check: Check
    jobs: tuple[str, ...]
    phase: str


RULES: list[Rule] = []


def rule(*keys: str, jobs: tuple[str, ...] = TRAINING_JOBS, phase: str = CONFIG) -> Callable[[Check], Check]:
    """Register a check under the keys it speaks of; its docstring is the sentence that `llmf explain` shows."""

    def register(check: Check) -> Check:
        RULES.append(Rule(keys, " ".join((check.__doc__ or "").split()), check, jobs, phase))
        return check

    return register


def rules_about(key: str) -> list[Rule]:
    """The rules that speak of a parameter."""
    return [known for known in RULES if key in known.keys]


def broken(cfg: Config, phases: Collection[str], spoken_of: Collection[str]) -> Iterator[Problem]:
    """The problems of all rules of these phases, the cheapest phase first.

    A rule about a key in `spoken_of` is passed over, and so is a problem of a later phase about a key that an
    earlier one reported: one cause, one sentence.
    """
    told = set(spoken_of)
    for phase in PHASES:
        if phase not in phases:
            continue
        found: list[Problem] = []
        for known in RULES:
            if known.phase == phase and cfg.job.name in known.jobs and not told.intersection(known.keys):
                found += known.check(cfg)
        told |= {problem.key for problem in found}
        yield from found
