"""Seeds as repeats: trials that differ in `training.seed` alone are one group, and groups are compared by a t-test."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from llmf_hydra.errors import shown
from llmf_hydra.runs.folder import format_table
from llmf_hydra.sweeps.study import Objectives, Record

SEED = "training.seed"
LEVEL = 0.05  # below this p-value a difference is more than noise


@dataclass(frozen=True)
class Group:
    """Trials that differ in their seed alone."""

    params: Mapping[str, Any]  # without the seed
    values: Mapping[Any, float]  # seed -> first objective
    trials: int  # also those that have no value

    @property
    def mean(self) -> float:
        return fmean(self.values.values())

    @property
    def sd(self) -> float | None:
        """The sample's standard deviation; None for a single value."""
        return stdev(self.values.values()) if len(self.values) > 1 else None

    @property
    def label(self) -> str:
        """`training.learning_rate=0.05`."""
        return " ".join(f"{key}={shown(value)}" for key, value in self.params.items()) or "all trials"


@dataclass(frozen=True)
class Comparison:
    """The best group against the next, over the seeds that both have."""

    seeds: int
    difference: float | None  # mean of the paired differences; positive: the best is better
    sd: float | None
    p: float | None  # None where no test is possible
    sentence: str


def groups(records: Sequence[Record], objectives: Objectives) -> list[Group]:
    """The groups that have a value, best mean first; empty where the seed doesn't vary."""
    if len({record.params.get(SEED) for record in records if SEED in record.params}) < 2:
        return []
    together: dict[tuple[tuple[str, str], ...], list[Record]] = {}
    for record in records:
        together.setdefault(_others(record), []).append(record)
    made = [_group(members) for members in together.values()]
    sign = -1 if objectives[0][1] == "maximize" else 1
    return sorted((group for group in made if group.values), key=lambda group: sign * group.mean)


def _others(record: Record) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((key, repr(value)) for key, value in record.params.items() if key != SEED))


def _group(members: Sequence[Record]) -> Group:
    values: dict[Any, list[float]] = {}
    for record in members:
        if record.status == "done" and record.value is not None and record.feasible:
            values.setdefault(record.params[SEED], []).append(record.value)
    params = {key: value for key, value in members[0].params.items() if key != SEED}
    return Group(params, {seed: fmean(drawn) for seed, drawn in values.items()}, len(members))


def means(records: Sequence[Record], keys: Sequence[str]) -> list[tuple[dict[str, Any], list[float]]]:
    """The parameters `keys` of trials that are done, each combination once, with the means of their objectives."""
    together: dict[tuple[str, ...], list[Record]] = {}
    for record in records:
        if all(key in record.params for key in keys):
            together.setdefault(tuple(repr(record.params[key]) for key in keys), []).append(record)
    return [
        (
            {key: members[0].params[key] for key in keys},
            [fmean(column) for column in zip(*(record.values for record in members), strict=True)],
        )
        for members in together.values()
    ]


def compare(found: Sequence[Group], objectives: Objectives) -> Comparison | None:
    """The best group against the next; None where there is one group only."""
    if len(found) < 2:
        return None
    best, following = found[:2]
    common = [seed for seed in best.values if seed in following.values]
    if len(common) < 2:
        have = "none" if not common else "only 1"
        told = f"no test is possible: the best two have {have} of their seeds in common, and a test takes 2"
        return Comparison(len(common), None, None, None, told)
    sign = 1 if objectives[0][1] == "maximize" else -1
    ours, theirs = [best.values[seed] for seed in common], [following.values[seed] for seed in common]
    differences = [sign * (a - b) for a, b in zip(ours, theirs, strict=True)]
    mean, sd = fmean(differences), stdev(differences)
    head = f"the best {'beats' if mean > 0 else 'equals' if mean == 0 else 'is behind'} the next"
    if sd <= 1e-12 * max(map(abs, [*ours, *theirs])):
        told = f"{head} by {abs(mean):.4g} with each of {len(common)} seeds: without a spread no test is possible"
        return Comparison(len(common), mean, sd, None, told)
    from scipy.stats import ttest_rel

    p = float(ttest_rel(ours, theirs).pvalue)
    verdict = "more than noise" if p < LEVEL else "not more than noise"
    amount = f"{abs(mean):.4g} ± {sd:.2g} over {len(common)} seeds"
    return Comparison(len(common), mean, sd, p, f"{head} by {amount}, p = {p:.2g}: {verdict}")


def closing_lines(records: Sequence[Record], objectives: Objectives) -> list[str]:
    """The groups as a table, best first, and how sure the first place is; empty where the seed doesn't vary."""
    found = groups(records, objectives)
    if not found:
        return []
    name = objectives[0][0]
    lines = format_table(["seeds", f"mean {name}", "sd", "overrides"], list(map(cells, found))).splitlines()
    comparison = compare(found, objectives)
    return [f"{SEED} as repeats:", *lines, *([comparison.sentence] if comparison else [])]


def cells(group: Group) -> list[str]:
    """A group as a row: `2 of 3` where a trial was pruned or failed."""
    seeds = len(group.values)
    counted = str(seeds) if seeds == group.trials else f"{seeds} of {group.trials}"
    return [counted, f"{group.mean:.4f}", "-" if group.sd is None else f"{group.sd:.4f}", group.label]


def for_programs(records: Sequence[Record], objectives: Objectives) -> dict[str, Any] | None:
    """Groups and comparison as JSON has them; None where the seed doesn't vary."""
    found = groups(records, objectives)
    if not found:
        return None
    comparison = compare(found, objectives)
    told = [
        {
            "params": dict(group.params),
            "seeds": list(group.values),
            "values": list(group.values.values()),
            "n": len(group.values),
            "trials": group.trials,
            "mean": group.mean,
            "sd": group.sd,
        }
        for group in found
    ]
    return {"groups": told, "comparison": None if comparison is None else vars(comparison)}
