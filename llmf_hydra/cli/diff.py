"""`llmf diff RUN RUN`: what two runs were given, and what came of it."""

import csv
import json
import os
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmf_hydra.cli.commands import Parser
from llmf_hydra.cli.run_folder import named_run
from llmf_hydra.comparison import circumstances, curves, outcome
from llmf_hydra.comparison.difference import Difference, differences_of
from llmf_hydra.config import record
from llmf_hydra.config.schema import entries, value_at
from llmf_hydra.config.secrets import masked_tree
from llmf_hydra.errors import DONE, Problem, Refused, shown
from llmf_hydra.runs import folder as runs

CONFIG, SEED, METRIC = "config", "seed", "metric"
KINDS = (CONFIG, circumstances.CODE, circumstances.PACKAGE_KIND, circumstances.DATA, circumstances.TOKENIZER,
         circumstances.TEMPLATE, circumstances.MODEL, SEED)  # fmt: skip


@dataclass(frozen=True)
class Side:
    """One of the two runs."""

    out: Path
    manifest: runs.Manifest

    @property
    def name(self) -> str:
        return os.path.relpath(self.out)


def main(argv: Sequence[str]) -> int:
    """Answer `llmf diff`; returns the exit code, which is 0 whether or not the runs differ. Raises Refused."""
    parser = Parser("diff")
    parser.add_argument("old", metavar="RUN", help="a run folder; `llmf runs` lists them")
    parser.add_argument("new", metavar="RUN", help="another one")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print the answer as JSON")
    form.add_argument("--csv", action="store_true", help="print it as CSV: kind, name, old, new")
    parser.add_argument("--plot", type=Path, metavar="FILE.html", help="draw the losses of both into a page")
    asked = parser.parse_args(argv)
    if asked.plot is not None:
        _check_plot(asked.plot)
    old, new = (Side(*named_run(name)) for name in (asked.old, asked.new))
    if asked.plot is not None:
        _plot(asked.plot, old, new)
    _answer(old, new, asked)
    return DONE


def _check_plot(file: Path) -> None:
    if file.suffix.lower() not in (".html", ".htm"):
        raise Refused([Problem("--plot", file, "is no HTML page", f"name it {file.with_suffix('.html')}")])
    if file.exists() or not file.absolute().parent.is_dir():
        what = "is there already" if file.exists() else "lies in a folder that does not exist"
        raise Refused([Problem("--plot", file, what, "name a new file")])


def _plot(file: Path, old: Side, new: Side) -> None:
    steps = {side.name: outcome.by_step(side.out) for side in (old, new)}
    if len(steps) < 2 or not curves.losses(steps):
        what = "both are the same run" if len(steps) < 2 else "neither run has logged a loss"
        raise Refused([Problem("--plot", file, what)])
    drawn = curves.write_page(file, steps)
    print(f"{file}: {', '.join(drawn)} of both runs", file=sys.stderr)


def _answer(old: Side, new: Side, asked: Namespace) -> None:
    found = list(_differences(old, new))
    metrics = _metrics(old, new)
    if asked.json:
        log = outcome.compare_logs(old.out, new.out)
        answer = {
            "runs": [str(side.out) for side in (old, new)],
            "differences": [change.as_dict() for change in found],
            "notices": circumstances.notices(old.manifest, new.manifest),
            "metrics": {change.name: {"old": change.old, "new": change.new} for change in metrics},
            **outcome.as_dict(log, None),
        }
        print(json.dumps(answer, indent=2, default=str))
    elif asked.csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(["kind", "name", "old", "new"])
        writer.writerows([change.kind, change.name, change.old, change.new] for change in (*found, *metrics))
    else:
        print("\n".join(_lines(old, new, found, metrics)))


def _differences(old: Side, new: Side) -> Iterator[Difference]:
    yield from differences_of(CONFIG, _config(old), _config(new))
    yield from circumstances.differences(old.manifest, new.manifest)
    yield from differences_of(SEED, old.manifest.get("seeds") or {}, new.manifest.get("seeds") or {})


def _config(side: Side) -> dict[str, Any]:
    """All values of a run's config by their keys, secrets masked."""
    cfg = record.load(side.out / runs.CONFIG)
    return masked_tree({key: value_at(cfg, key) for key in entries()})


def _metrics(old: Side, new: Side) -> list[Difference]:
    """The last values of all metrics but those of the clock, also where they are equal."""
    was, now = _last(old), _last(new)
    return [Difference(METRIC, name, was.get(name), now.get(name)) for name in dict.fromkeys((*was, *now))]


def _last(side: Side) -> dict[str, float]:
    return {
        name: float(value) for name, value in runs.metrics(side.out).items() if not outcome.CLOCK.search(name)
    }


def _lines(old: Side, new: Side, found: list[Difference], metrics: list[Difference]) -> Iterator[str]:
    for sign, side in (("-", old), ("+", new)):
        yield f"{sign} {side.name} ({runs.status(side.manifest)}, {side.manifest.get('created', '')[:16]})"
    for kind in KINDS:
        of_kind = [change for change in found if change.kind == kind]
        if kind == SEED and not of_kind:
            seeds = old.manifest.get("seeds") or {}
            yield f"{kind}: same ({', '.join(f'{name} {shown(value)}' for name, value in seeds.items())})"
        elif not of_kind:
            yield f"{kind}: same"
        else:
            yield f"{kind}: {len(of_kind)} differ{'s' if len(of_kind) == 1 else ''}"
            yield from (f"  {_change(change)}" for change in of_kind)
    yield from (f"notice: {said}" for said in circumstances.notices(old.manifest, new.manifest))
    log = outcome.compare_logs(old.out, new.out)
    same = f"the same {log.values} values in {log.steps} steps" if log.values else "no step in common"
    yield f"log: {same if log.parting is None else f'parts at {log.parting}'}"
    if metrics:
        yield f"{METRIC}s"
        yield from (
            f"  {line}"
            for line in runs.format_table(["", "-", "+", "+ minus -"], _table(metrics)).split("\n")
        )


def _change(change: Difference) -> str:
    if change.kind == CONFIG:
        return f"{change.name}: {shown(change.old)} -> {shown(change.new)}"
    return str(change).removeprefix(f"{change.kind} ")


def _table(metrics: list[Difference]) -> list[list[str]]:
    rows = []
    for change in metrics:
        apart = "-" if None in (change.old, change.new) else f"{change.new - change.old:+.3g}"
        rows.append([change.name, _number(change.old), _number(change.new), apart])
    return rows


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"
