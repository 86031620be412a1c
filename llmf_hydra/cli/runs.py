"""`llmf runs [FOLDER]`: the runs below a folder, filtered and sorted."""

import os
from argparse import Namespace
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from llmf_hydra.cli.commands import Parser
from llmf_hydra.config.choices import STAGES
from llmf_hydra.errors import DONE
from llmf_hydra.runs import folder as runs
from llmf_hydra.runs.folder import Manifest, Row

HEAD = ["date", "status", "stage", "method", "model", "objective", "duration", "run"]
SORTED_BY: dict[str, Callable[[Row], str | tuple[bool, float]]] = {
    "date": lambda row: row.manifest.get("created", ""),
    "objective": lambda row: (row.objective is None, row.objective or 0.0),
    "status": lambda row: row.status,
    "stage": lambda row: row.manifest.get("stage") or "",
    "model": lambda row: row.manifest.get("model") or "",
}


def main(argv: Sequence[str]) -> int:
    """Answer `llmf runs`; returns the exit code."""
    parser = Parser("runs")
    parser.add_argument("folder", nargs="?", type=Path, default=Path("outputs"), help="default: outputs")
    parser.add_argument("--stage", choices=tuple(STAGES), help="runs of this stage")
    parser.add_argument("--status", choices=runs.STATUSES, help="runs of this status")
    parser.add_argument("--last", type=int, metavar="N", help="the N that began last")
    parser.add_argument(
        "--sort", choices=tuple(SORTED_BY), default="date", help="default: date, the latest last"
    )
    parser.add_argument("--all", action="store_true", help="job=check and job=preview too")
    print(table(parser.parse_args(argv)))
    return DONE


def table(asked: Namespace) -> str:
    """The runs that were asked for, a line each."""
    rows = [row for row in runs.find(asked.folder) if _is_asked_for(row, asked)]
    if asked.last is not None:
        rows = rows[-asked.last :] if asked.last > 0 else []
    rows.sort(key=SORTED_BY[asked.sort])
    return runs.format_table(HEAD, [_cells(row) for row in rows]) if rows else f"no runs below {asked.folder}"


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
