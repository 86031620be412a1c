"""The account of a sweep: `sweep.json` for programs, a table and the best trial for readers."""

import os
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from llmf_hydra.config.groups.tracking import TrackingConfig
from llmf_hydra.config.secrets import masked_tree, masked_word
from llmf_hydra.runs import folder as runs
from llmf_hydra.sweeps.study import Objectives, Record
from llmf_hydra.tracking import mlflow, sweep_end
from llmf_hydra.tracking.contract import DONE, FAILED, KILLED
from llmf_hydra.tracking.sweep_end import SweepEnd

ACCOUNT = "sweep.json"


class Row(TypedDict):
    """A trial as `sweep.json` has it."""

    number: int
    status: str
    objective: float | None
    values: list[float]
    params: dict[str, object]
    overrides: list[str]
    code: int | None
    reason: str
    attempt: int
    started: str | None
    ended: str | None
    out: str


def write(folder: Path, name: str, objectives: Objectives, records: Sequence[Record]) -> None:
    """Write the sweep's account, best trial first."""
    rows = [row(record) for record in ranked(records, objectives)]
    content = {"study": name, "objectives": dict(objectives), "trials": rows}
    runs.write_json(folder / ACCOUNT, masked_tree(content))


def row(record: Record) -> Row:
    """A trial for programs."""
    return {
        "number": record.number,
        "status": record.status,
        "objective": record.value,
        "values": record.values,
        "params": record.params,
        "overrides": record.overrides,
        "code": record.code,
        "reason": record.reason,
        "attempt": record.attempt,
        "started": record.started,
        "ended": record.ended,
        "out": record.out,
    }


def ranked(records: Sequence[Record], objectives: Objectives) -> list[Record]:
    """By the first objective, best first; then those that break a constraint, and those without a value."""
    sign = -1 if objectives[0][1] == "maximize" else 1
    return sorted(
        records,
        key=lambda record: (
            record.status != "done" or record.value is None,
            not record.feasible,
            sign * (record.value or 0.0) if record.status == "done" else 0.0,
            record.number,
        ),
    )


def best(records: Sequence[Record], objectives: Objectives) -> Record | None:
    """The best trial that is done and holds the constraints; None where there is none."""
    able = [record for record in records if record.status == "done" and record.values and record.feasible]
    return ranked(able, objectives)[0] if able else None


def pareto(records: Sequence[Record], objectives: Objectives) -> list[Record]:
    """The trials that no other one beats in all objectives."""
    signs = [-1 if direction == "maximize" else 1 for _, direction in objectives]
    able = [record for record in records if record.status == "done" and record.values and record.feasible]

    def beaten(record: Record) -> bool:
        own = [sign * value for sign, value in zip(signs, record.values, strict=True)]
        for other in able:
            theirs = [sign * value for sign, value in zip(signs, other.values, strict=True)]
            if all(a <= b for a, b in zip(theirs, own, strict=True)) and theirs != own:
                return True
        return False

    return [record for record in able if not beaten(record)]


def table(records: Sequence[Record], objectives: Objectives) -> str:
    """All trials that were begun, best first."""
    begun = [record for record in ranked(records, objectives) if record.status != "waiting"]
    names = [name for name, _ in objectives] if len(objectives) > 1 else ["objective"]
    head = ["trial", "status", *names, "duration", "overrides", "folder"]
    return runs.format_table(head, [_cells(record, begun, len(names)) for record in begun])


def outcome(record: Record) -> str:
    """`done 0.6931`, or `failed: out of memory`."""
    if record.reason and record.status != "done":
        return f"{record.status}: {record.reason}"
    return " ".join([record.status, *(f"{value:.4f}" for value in record.values)])


def repeat(record: Record, flags: Sequence[str] = ()) -> str:
    """The command that trains a trial once more, on its own."""
    words = ["hydra.mode=RUN", *record.overrides] if flags else record.overrides
    return shlex.join(["llmf-hydra", *flags, *words])


def varied(overrides: Sequence[str], grid: Sequence[Sequence[str]]) -> list[str]:
    """The words of a trial that aren't the same in all trials; all of them if there is one trial."""
    return [word for word in overrides if not all(word in other for other in grid)] or list(overrides)


def _cells(record: Record, begun: Sequence[Record], values: int) -> list[str]:
    figures = [f"{value:.4f}" for value in record.values] or ["-"] * values
    words = varied(record.overrides, [other.overrides for other in begun if other.overrides])
    folder = os.path.relpath(record.out) if record.out else "-"
    took = runs.clock(runs.seconds(record.started, record.ended))
    return [
        str(record.number),
        record.status,
        *figures,
        took,
        " ".join(map(masked_word, words)),
        folder,
    ]


def close_tracked(
    folder: Path, tracking: TrackingConfig, records: Sequence[Record], *, stopped: bool
) -> None:
    """Have the study's run in MLflow say how it ended, if its trials made one; another launcher's keep it open."""
    statuses = Counter(record.status for record in records)
    tracked = any((Path(record.out) / mlflow.RUN_ID).exists() for record in records if record.out)
    if not tracked or (statuses["running"] and not stopped):
        return
    over = f"{statuses['done'] + statuses['pruned']} of {len(records)} trials ended well"
    ill = next((record for record in records if record.status in ("failed", "refused")), None)
    status, reason = DONE, over
    if stopped or statuses["waiting"] or statuses["killed"]:
        status, reason = KILLED, f"stopped{' by the user' if stopped else ''}: {over}"
    elif ill is not None:
        status, reason = FAILED, f"{over}; trial {ill.number} {ill.status}: {ill.reason}"
    sweep_end.close(tracking, Path.cwd() / "outputs", SweepEnd(folder.name, str(folder), status, reason))
