"""A study at a glance: counts, the best trial, what is running and for how long still; as text, JSON and CSV."""

import csv
import io
import os
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from llmf_hydra.config.secrets import masked_text, masked_tree
from llmf_hydra.runs import folder as runs
from llmf_hydra.sweeps import account, repeats
from llmf_hydra.sweeps.folder import SweepFolder
from llmf_hydra.sweeps.study import Record
from llmf_hydra.tracking.files import LOG, read_log

STATUSES = ("done", "running", "waiting", "pruned", "failed", "refused", "killed")
WORKER_LOG = "worker.log"
STEP = re.compile(r"\bstep (\d+)/(\d+)\b")
TAIL = 8192  # bytes at a log's end that are looked at


@dataclass(frozen=True)
class Running:
    """A trial that trains right now."""

    number: int
    step: int | None  # None until its first step is logged
    steps: int | None  # in all
    loss: float | None
    elapsed: float  # seconds


@dataclass(frozen=True)
class View:
    """What there is to say of a study at one moment."""

    folder: SweepFolder
    records: list[Record]
    running: list[Running]
    left: float | None  # seconds until all trials are over; None where nothing runs or no trial has ended yet

    @property
    def counts(self) -> dict[str, int]:
        """Trials by status, those without one left out."""
        counted = Counter(record.status for record in self.records)
        return {status: counted[status] for status in STATUSES if counted[status]}

    @property
    def over(self) -> bool:
        """Whether no trial is left to run."""
        return not any(record.status in ("waiting", "running", "killed") for record in self.records)


def view(folder: SweepFolder) -> View:
    """The study as it is now."""
    records = folder.records()
    running = [_running(record) for record in records if record.status == "running"]
    return View(folder, records, running, seconds_left(records, running))


def text(seen: View) -> str:
    """The study for a reader: a line of counts, what runs, the best so far, the table, the repeats."""
    return masked_text("\n".join(_lines(seen)))


def _lines(seen: View) -> Iterator[str]:
    counts = ", ".join(f"{count} {status}" for status, count in seen.counts.items())
    left = f"; about {runs.clock(round(seen.left))} left" if seen.left is not None else ""
    yield f"study {seen.folder.name}: {len(seen.records)} trials, {counts or 'none begun'}{left}"
    for running in seen.running:
        yield f"  {_told(running)}"
    if not seen.running and not seen.over:
        yield f"nothing runs; go on with: llmf sweep resume {shlex.quote(os.path.relpath(seen.folder.path))}"
    yield from _best(seen)
    if any(record.status != "waiting" for record in seen.records):
        yield account.table(seen.records, seen.folder.objectives)
    yield from repeats.closing_lines(seen.records, seen.folder.objectives)


def _best(seen: View) -> Iterator[str]:
    objectives = seen.folder.objectives
    if len(objectives) > 1:
        front = account.pareto(seen.records, objectives)
        if front:
            yield f"on the Pareto front: trials {', '.join(str(record.number) for record in front)}"
        return
    best = account.best(seen.records, objectives)
    if best is not None:
        so_far = "" if seen.over else " so far"
        yield f"best{so_far}: trial {best.number}, {next(iter(objectives))[0]} {best.value:.6g}; repeat it with"
        yield f"  {account.repeat(best, seen.folder.flags)}"


def _told(running: Running) -> str:
    where = "starts" if running.step is None else f"step {running.step}/{running.steps or '?'}"
    loss = "" if running.loss is None else f", loss {running.loss:.4f}"
    return f"trial {running.number} runs for {runs.clock(round(running.elapsed))}: {where}{loss}"


def for_programs(seen: View) -> dict[str, Any]:
    """The study as `--json` has it."""
    objectives = seen.folder.objectives
    best = account.best(seen.records, objectives) if len(objectives) == 1 else None
    content = {
        "study": seen.folder.name,
        "dir": str(seen.folder.path),
        "objectives": dict(objectives),
        "counts": seen.counts,
        "over": seen.over,
        "seconds_left": seen.left,
        "running": [asdict(running) for running in seen.running],
        "best": None
        if best is None
        else {**account.row(best), "repeat": account.repeat(best, seen.folder.flags)},
        "pareto": [record.number for record in account.pareto(seen.records, objectives)],
        "repeats": repeats.for_programs(seen.records, objectives),
        "trials": [account.row(record) for record in account.ranked(seen.records, objectives)],
    }
    return masked_tree(content)


def as_csv(seen: View) -> str:
    """A row per trial, best first: its values, its parameters, its times."""
    keys = varied(seen.records)
    names = [name for name, _ in seen.folder.objectives]
    written = io.StringIO()
    rows = csv.writer(written, lineterminator="\n")
    rows.writerow(["trial", "status", *names, *keys, "seconds", "started", "ended", "folder", "reason"])
    for record in account.ranked(seen.records, seen.folder.objectives):
        values: list[Any] = record.values or [""] * len(names)
        params = masked_tree({key: record.params.get(key, "") for key in keys})
        end = [_seconds(record) or "", record.started, record.ended, record.out, masked_text(record.reason)]
        rows.writerow([record.number, record.status, *values, *params.values(), *end])
    return written.getvalue()


def varied(records: Sequence[Record]) -> list[str]:
    """The parameters of a study, in the order of its trials."""
    return list(dict.fromkeys(key for record in records for key in record.params))


def curve(record: Record, metric: str) -> dict[int, float]:
    """A metric of a trial's log by step; a step that was done again counts as it was the last time."""
    file = Path(record.out) / LOG
    if not record.out or not file.exists():
        return {}
    return dict(sorted((int(line["step"]), float(line[metric])) for line in read_log(file) if metric in line))


def _running(record: Record) -> Running:
    loss = curve(record, "loss")
    step, steps = _progress(Path(record.out)) if record.out else (None, None)
    last = next(reversed(loss.values()), None)
    return Running(record.number, step, steps, last, _elapsed(record, datetime.now(UTC)))


def _progress(out: Path) -> tuple[int | None, int | None]:
    """The last step that the worker told of, and how many there are."""
    try:
        with (out / WORKER_LOG).open("rb") as file:
            end = file.seek(0, 2)
            file.seek(max(0, end - TAIL))
            told = file.read().decode("utf8", "replace")
    except OSError:
        return None, None
    found = STEP.findall(told)
    return (int(found[-1][0]), int(found[-1][1])) if found else (None, None)


def seconds_left(records: Sequence[Record], running: Sequence[Running]) -> float | None:
    """Seconds until the end, if the trials to come take as long as those that are done and as many run at once."""
    took = [
        seconds for record in records if record.status in ("done", "pruned") and (seconds := _seconds(record))
    ]
    if not took or not running:
        return None
    each = fmean(took)
    waiting = sum(record.status in ("waiting", "killed") for record in records)
    own = [max(0.0, each - trial.elapsed) for trial in running]
    return max([*own, (waiting * each + sum(own)) / len(running)])


def _seconds(record: Record) -> float | None:
    """How long an ended trial took."""
    if record.started is None or record.ended is None:
        return None
    return _elapsed(record, datetime.fromisoformat(record.ended))


def _elapsed(record: Record, end: datetime) -> float:
    return 0.0 if record.started is None else (end - datetime.fromisoformat(record.started)).total_seconds()
