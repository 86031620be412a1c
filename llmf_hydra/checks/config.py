"""`problems`: everything that is wrong with a composed config, in one answer and without torch.

A check never changes a config. It has four parts: each value on its own, what isn't built yet, what has no
effect in this run, and the rules across parameters.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from llmf_hydra.checks.general import RULES
from llmf_hydra.config import adapters
from llmf_hydra.config.param import set_in_environment
from llmf_hydra.config.schema import Config, Entry, entries, value_at
from llmf_hydra.errors import NO_VALUE, Problem

NOT_BUILT = "declared, not built yet"


def problems(cfg: Config, shipped: Mapping[str, Any]) -> list[Problem]:
    """All problems that refuse the run; empty if it may begin.

    `shipped` holds, by full key, what the chosen files of the package set: what stands there was not the
    user's word, so it may lie idle without being reported.
    """
    found = [*_bad_values(cfg), *_not_built(cfg)]
    spoken_of = {problem.key for problem in found}
    if not cfg.launch.allow_extra_args:
        found += [p for p in without_effect(cfg, shipped) if p.key not in spoken_of]
    for rule in RULES:
        if not spoken_of.intersection(rule.keys):  # one cause, one sentence
            found += rule.check(cfg)
    return found


def without_effect(cfg: Config, shipped: Mapping[str, Any]) -> list[Problem]:
    """Values that the user set and that this run would not read."""
    return [*_idle(cfg, shipped), *adapters.without_effect(cfg)]


def not_built(entry: Entry, value: Any) -> Problem | None:
    """The refusal of a value whose behaviour isn't built yet, or None."""
    declared = entry.param
    if value in declared.planned_choices:
        shown = f"{entry.group}={value}" if entry.is_choice else f"{entry.key}={value}"
        built = [choice for choice in declared.choices if choice not in declared.planned_choices]
        return Problem(shown, NO_VALUE, NOT_BUILT, f"built are {', '.join(built)}")
    if declared.planned and value != declared.default:
        return Problem(entry.key, value, NOT_BUILT, "leave it out; `llmf status` lists what is built")
    return None


def _bad_values(cfg: Config) -> Iterator[Problem]:
    for key, entry in entries().items():
        problem = entry.param.problem(_named(entry), value_at(cfg, key))
        if problem is not None:
            yield problem


def _named(entry: Entry) -> str:
    """The key, and the environment variable where the value came from one."""
    return f"{entry.key} (from {entry.param.env})" if set_in_environment(entry.param) else entry.key


def _not_built(cfg: Config) -> Iterator[Problem]:
    for key, entry in entries().items():
        if entry.param.jobs and cfg.job.name not in entry.param.jobs and set_in_environment(entry.param):
            continue  # an API_PORT in the environment is no word about this training
        value = value_at(cfg, key)
        if value in entry.param.choices or not entry.param.choices:  # a bad choice is told as such
            problem = not_built(entry, value)
            if problem is not None:
                yield problem


def _idle(cfg: Config, shipped: Mapping[str, Any]) -> Iterator[Problem]:
    for key, entry in entries().items():
        value = value_at(cfg, key)
        if value in (entry.param.default, shipped.get(key, entry.param.default)) or set_in_environment(
            entry.param
        ):
            continue
        for other, allowed in entry.param.only.items():
            actual = value_at(cfg, other)
            if actual not in allowed:
                where = " or ".join(_shown(other, choice) for choice in allowed)
                yield Problem(
                    key,
                    value,
                    f"has no effect with {_shown(other, actual)}: it acts only with {where}",
                    "leave it out",
                )
                break


def _shown(key: str, value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"{key.removesuffix('.name')}={text}"
