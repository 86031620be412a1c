"""`llmf runs [FOLDER]`: the runs below a folder, filtered and sorted, or the best of them."""

import csv
import json
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

from llmf_hydra.cli.commands import Parser
from llmf_hydra.config.choices import STAGES
from llmf_hydra.errors import DONE, Problem, Refused
from llmf_hydra.runs import folder as runs
from llmf_hydra.runs.folder import Manifest, Row
from llmf_hydra.runs.listing import find

HEAD = ["date", "status", "stage", "method", "model", "objective", "duration", "run"]
ALL = 0  # of --best without a number
SORTED_BY: dict[str, Callable[[Row], str | tuple[bool, float]]] = {
    "date": lambda row: row.manifest.get("created") or "",
    "objective": lambda row: (row.objective is None, row.objective or 0.0),
    "status": lambda row: row.status,
    "stage": lambda row: row.manifest.get("stage") or "",
    "model": lambda row: row.manifest.get("model") or "",
}
Group = tuple[str, str, str]  # what can be compared: stage, name of the objective, direction


def main(argv: Sequence[str]) -> int:
    """Answer `llmf runs`; returns the exit code."""
    parser = Parser("runs")
    parser.add_argument("folder", nargs="?", type=Path, help="default: outputs")
    parser.add_argument("--stage", choices=tuple(STAGES), help="runs of this stage")
    parser.add_argument("--status", choices=runs.STATUSES, help="runs of this status")
    parser.add_argument("--last", type=int, metavar="N", help="the N that began last")
    parser.add_argument("--sort", choices=tuple(SORTED_BY), help="default: date, the latest last")
    parser.add_argument(
        "--best",
        nargs="?",
        type=int,
        const=ALL,
        metavar="N",
        help="best objective first, the N best of each stage and objective",
    )
    parser.add_argument("--all", action="store_true", help="job=check and job=preview too")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print the runs as JSON")
    form.add_argument("--csv", action="store_true", help="print the runs as CSV")
    asked = parser.parse_args(argv)
    asked.folder = _folder(asked.folder)
    if asked.best is not None:
        _check_best(asked)
    rows = _rows(asked)
    if asked.json or asked.csv:
        _print_records(_records(rows, asked), asked)
    else:
        print(ranking(rows, asked) if asked.best is not None else table(rows, asked))
    return DONE


def _folder(given: Path | None) -> Path:
    """The folder to look in. Raises Refused for one that was named and isn't there."""
    if given is not None and not given.is_dir():
        raise Refused(
            [Problem("FOLDER", given, "is a file" if given.exists() else "there is no such folder")]
        )
    return given or Path("outputs")


def _check_best(asked: Namespace) -> None:
    if asked.sort is not None:
        raise Refused([Problem("--sort", asked.sort, "contradicts --best, which sorts by the objective")])
    if asked.best < ALL:
        raise Refused([Problem("--best", asked.best, "must be >= 1", "leave the number out for all")])


def _rows(asked: Namespace) -> list[Row]:
    """The runs that were asked for, in their order."""
    rows = [row for row in find(asked.folder) if _is_asked_for(row, asked)]
    if asked.last is not None:
        rows = rows[-asked.last :] if asked.last > 0 else []
    return sorted(rows, key=SORTED_BY[asked.sort or "date"])


def table(rows: list[Row], asked: Namespace) -> str:
    """The runs, a line each."""
    return runs.format_table(HEAD, [_cells(row) for row in rows]) if rows else f"no runs below {asked.folder}"


def ranking(rows: list[Row], asked: Namespace) -> str:
    """The best runs of each stage and objective, a table each: unlike objectives don't compare."""
    groups = _ranked(rows, asked.best)
    if not groups:
        return f"no runs with an objective below {asked.folder}"
    parts = []
    for (stage, objective, direction), best in groups.items():
        better = "higher" if direction == "maximize" else "lower"
        head = f"{stage} by {objective}, {better} is better"
        parts.append(f"{head}\n{runs.format_table(HEAD, [_cells(row) for row in best])}")
    if len(groups) > 1:
        parts.append(f"{len(groups)} groups: runs of another stage or objective don't compare")
    without = sum(row.objective is None for row in rows)
    if without:
        parts.append(f"{without} run{'s' if without > 1 else ''} without an objective left out")
    return "\n\n".join(parts)


def _ranked(rows: list[Row], most: int) -> dict[Group, list[Row]]:
    """The runs with an objective by what they can be compared in, best first; at most so many in each group."""
    groups: dict[Group, list[Row]] = {}
    for row in rows:
        if row.objective is not None:
            groups.setdefault(_group(row), []).append(row)
    best = {}
    for group in sorted(groups):
        sign = -1.0 if group[2] == "maximize" else 1.0
        ordered = sorted(groups[group], key=lambda row, sign=sign: _order(row.objective, sign))
        best[group] = ordered[: most or None]
    return best


def _order(value: float | None, sign: float) -> tuple[bool, float]:
    """Where a value belongs: one that is no number comes last."""
    return (True, 0.0) if value is None or value != value else (False, sign * value)


def _group(row: Row) -> Group:
    manifest = row.manifest
    direction = manifest.get("direction") or "minimize"
    objective = manifest.get("objective")
    return manifest.get("stage") or "-", objective["name"] if objective else "-", direction


def _records(rows: list[Row], asked: Namespace) -> Iterator[dict[str, object]]:
    """The runs for programs, with their rank in their group where the best are asked for."""
    if asked.best is None:
        yield from map(_record, rows)
        return
    for best in _ranked(rows, asked.best).values():
        for rank, row in enumerate(best, 1):
            yield {"rank": rank, **_record(row)}


def _record(row: Row) -> dict[str, object]:
    manifest = row.manifest
    known = {key: manifest.get(key) for key in ("created", "stage", "method", "model", "data")}
    objective = manifest.get("objective") or {}
    return {
        "run": str(row.out),
        "status": row.status,
        "job": row.job,
        **known,
        "objective": objective.get("name"),
        "value": row.objective,
        "direction": manifest.get("direction"),
        "seconds": runs.seconds(manifest.get("started"), manifest.get("ended")),
    }


def _print_records(records: Iterator[dict[str, object]], asked: Namespace) -> None:
    found = list(records)
    if asked.json:
        print(json.dumps(found, indent=2))
    elif found:
        writer = csv.DictWriter(sys.stdout, list(found[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)


def _is_asked_for(row: Row, asked: Namespace) -> bool:
    return (
        (asked.all or row.job == "train")
        and asked.stage in (None, row.manifest.get("stage"))
        and asked.status in (None, row.status)
    )


def _cells(row: Row) -> list[str]:
    manifest = row.manifest
    stage = manifest.get("stage") or "-"
    named = [manifest.get(key) or "-" for key in ("method", "model")]
    compared = manifest.get("objective")
    objective = f"{compared['value']:.4f} {compared['name']}" if compared else "-"
    job = stage if row.job == "train" else f"{stage} ({row.job})"
    return [
        _date(manifest),
        row.status,
        job,
        *named,
        objective,
        runs.duration(manifest),
        os.path.relpath(row.out),
    ]


def _date(manifest: Manifest) -> str:
    """When the run was made, in local time to the minute."""
    try:
        return datetime.fromisoformat(manifest["created"]).astimezone().strftime("%Y-%m-%d %H:%M")
    except (KeyError, TypeError, ValueError):
        return "-"
