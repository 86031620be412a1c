"""What two runs came to: their logs step by step, and the weights in final/."""

import json
import math
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from llmf_hydra.comparison.tensors import largest_difference, tensors
from llmf_hydra.runs.checkpoints import FINAL
from llmf_hydra.runs.manifest import digest_of_file
from llmf_hydra.tracking.files import LOG, read_log

CLOCK = re.compile("^time$|runtime|per_second")  # keys of a log that the clock decides
Steps = dict[int, dict[str, float]]


@dataclass(frozen=True)
class Parting:
    """The first value at which two logs differ; None where a log lacks it."""

    step: int
    metric: str
    old: float | None
    new: float | None

    @property
    def difference(self) -> float | None:
        return None if self.old is None or self.new is None else abs(self.new - self.old)

    def __str__(self) -> str:
        values = f"step {self.step}, {self.metric}: {_number(self.old)} -> {_number(self.new)}"
        return values if self.difference is None else f"{values}, a difference of {self.difference:.3g}"


@dataclass(frozen=True)
class LogComparison:
    """Two logs: how many steps and values were compared, and where they part first."""

    steps: int
    values: int
    parting: Parting | None


@dataclass(frozen=True)
class WeightComparison:
    """Two final/ folders: the files with the same bytes, the tensors that differ with the largest absolute difference
    of their elements, what only one side has."""

    files: int
    tensors: dict[str, float] = field(default_factory=dict)  # the largest difference first
    only_old: list[str] = field(default_factory=list)
    only_new: list[str] = field(default_factory=list)
    bytes_differ: list[str] = field(default_factory=list)

    @property
    def identical(self) -> bool:
        return self.files > 0 and not self.bytes_differ and not self.only_old and not self.only_new

    def lines(self) -> list[str]:
        """For people."""
        if not self.files and not self.only_old and not self.only_new:
            return ["weights: neither run has any in final/"]
        if self.identical:
            return [f"weights: the same bytes in {self.files} file{'s' if self.files > 1 else ''}"]
        alone = [("recorded", name) for name in self.only_old] + [("new", name) for name in self.only_new]
        lines = [f"weights: {name} is in the {side} run only" for side, name in alone]
        if self.tensors:
            name, most = next(iter(self.tensors.items()))
            lines.append(f"weights: {len(self.tensors)} tensors differ, most {name}: up to {most:.3g}")
        elif self.bytes_differ:
            lines.append(
                f"weights: equal tensors in files that differ otherwise: {', '.join(self.bytes_differ)}"
            )
        return lines


def compare_logs(old: Path, new: Path, *, until_old: bool = False) -> LogComparison:
    """Compare `log.jsonl` of two run folders; `until_old` leaves out what comes after the last value of the old."""
    was, now = by_step(old), by_step(new)
    if until_old:
        last = max(was, default=0)
        now = {step: values for step, values in now.items() if step <= last}
        now[last] = {key: value for key, value in now.get(last, {}).items() if key in was.get(last, {})}
    values = sum(len(was[step].keys() & now[step].keys()) for step in was.keys() & now.keys())
    return LogComparison(len(was.keys() & now.keys()), values, _parting(was, now))


def compare_weights(old: Path, new: Path) -> WeightComparison:
    """Compare the safetensors of final/ in two run folders: their bytes, and where these differ each tensor."""
    was, now = _weight_files(old), _weight_files(new)
    both = sorted(was.keys() & now.keys())
    differing = [name for name in both if digest_of_file(was[name]) != digest_of_file(now[name])]
    apart: dict[str, float] = {}
    for name in differing:
        left, right = tensors(was[name]), tensors(now[name])
        for tensor in dict.fromkeys((*left, *right)):
            in_both = tensor in left and tensor in right
            most = largest_difference(left[tensor], right[tensor]) if in_both else math.inf
            if most > 0:
                apart[tensor] = most
    return WeightComparison(
        len(both),
        dict(sorted(apart.items(), key=lambda item: -item[1])),
        sorted(was.keys() - now.keys()),
        sorted(now.keys() - was.keys()),
        differing,
    )


def by_step(out: Path) -> Steps:
    """The metrics of a run by step, without those of the clock; of a step that was done again the last ones."""
    found: Steps = {}
    for record in read_log(out / LOG) if (out / LOG).exists() else ():
        if "step" in record:
            values = {key: value for key, value in record.items() if not CLOCK.search(key) and key != "step"}
            found.setdefault(int(record["step"]), {}).update(values)
    return found


def as_dict(log: LogComparison, weights: WeightComparison | None) -> dict[str, Any]:
    """For JSON. `weights` is None where they can't be compared."""
    parting = log.parting and {**asdict(log.parting), "difference": log.parting.difference}
    of_weights = weights and {"identical": weights.identical, **asdict(weights)}
    tree = {"log": {"steps": log.steps, "values": log.values, "parting": parting}, "weights": of_weights}
    return json.loads(json.dumps(tree), parse_constant=str)  # NaN and Infinity are no JSON: as text


def _parting(was: Steps, now: Steps) -> Parting | None:
    for step in sorted(was.keys() | now.keys()):
        before, after = was.get(step, {}), now.get(step, {})
        for metric in dict.fromkeys((*before, *after)):
            if not _same(before.get(metric), after.get(metric)):
                return Parting(step, metric, before.get(metric), after.get(metric))
    return None


def _same(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return one == other or (math.isnan(one) and math.isnan(other))


def _weight_files(out: Path) -> dict[str, Path]:
    folder = out / FINAL
    return {file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*.safetensors"))}


def _number(value: float | None) -> str:
    return "none" if value is None else repr(value)
