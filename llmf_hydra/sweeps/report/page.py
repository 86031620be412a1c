"""The page of a study: plots, all trials, the repeats and the command of the best, in one file without a network."""

import json
import math
import os
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from llmf_hydra.config.secrets import masked_text
from llmf_hydra.errors import shown
from llmf_hydra.optional import require
from llmf_hydra.runs import folder as runs
from llmf_hydra.sweeps import account, repeats, show
from llmf_hydra.sweeps.folder import SweepFolder
from llmf_hydra.sweeps.report import figures
from llmf_hydra.sweeps.report.figures import Figure
from llmf_hydra.sweeps.study import Record

LEAST = 4  # done trials from which importances say something
KEY = "sweep report"
HERE = Path(__file__).parent
CURVES = ("loss", "eval_loss")


def html(folder: SweepFolder, out: Path) -> str:
    """The page; its links to run folders are relative to `out`. Raises Refused where a package is missing."""
    require("plotly", extra="report", key=KEY)
    require("sklearn", extra="report", key=KEY)
    from plotly.offline import get_plotlyjs

    seen = show.view(folder)
    plots: dict[str, Figure] = {}
    body = "\n".join(_body(seen, out, plots))
    data = json.dumps(_finite(plots), allow_nan=False).replace("<", "\\u003c")
    return PAGE.format(
        title=escape(f"study {folder.name}"),
        style=(HERE / "page.css").read_text(encoding="utf8"),
        body=body,
        figures=data,
        plotly=get_plotlyjs(),
        script=(HERE / "page.js").read_text(encoding="utf8"),
    )


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
<script id="figures" type="application/json">{figures}</script>
<script>{plotly}</script>
<script>{script}</script>
</body>
</html>
"""


def _body(seen: show.View, out: Path, plots: dict[str, Figure]) -> Iterator[str]:
    folder, plan = seen.folder, seen.folder.plan
    goals = ", ".join(f"{direction} {name}" for name, direction in folder.objectives)
    pruner = str(plan["pruner"]["pruner"])
    about = [goals, f"sampler {plan['sampler']}", *([] if pruner == "none" else [f"pruner {pruner}"])]
    yield f"<h1>{_text(folder.name)}</h1>"
    about.append(f"begun {str(plan['created'])[:16].replace('T', ' ')} UTC")
    yield f'<p class="soft">{_text(" · ".join(about))}</p>'
    counts = [f"{len(seen.records)} trials", *(f"{count} {status}" for status, count in seen.counts.items())]
    yield f'<ul class="counts">{"".join(f"<li>{_text(count)}</li>" for count in counts)}</ul>'
    yield '<div class="cards">'
    yield from _best(seen)
    yield from _plots(seen, plots)
    yield from _repeats(seen)
    yield _section("All trials", _trials(seen, out), wide=True)
    yield "</div>"


def _best(seen: show.View) -> Iterator[str]:
    objectives = seen.folder.objectives
    best = account.best(seen.records, objectives)
    if len(objectives) > 1 or best is None:
        return
    command = account.repeat(best, seen.folder.flags)
    name = next(iter(objectives))[0]
    told = f"Trial {best.number}: {name} {best.value:.6g}. This trains it once more:"
    yield _section("Best trial", f"<p>{_text(told)}</p><pre>{_text(command)}</pre>", wide=True)


def _plots(seen: show.View, plots: dict[str, Figure]) -> Iterator[str]:
    records, objectives = seen.records, seen.folder.objectives

    def plot(title: str, figure: Figure | None, otherwise: str, *, wide: bool = False) -> str:
        if figure is None:
            return _section(title, f'<p class="soft">{_text(otherwise)}</p>', wide=wide)
        name = f"plot{len(plots)}"
        plots[name] = figure
        return _section(title, f'<div class="plot" id="{name}"></div>', wide=wide)

    if not any(record.status == "done" and record.values for record in records):
        yield _section("Plots", '<p class="soft">No trial is done yet.</p>', wide=True)
    else:
        if len(objectives) > 1:
            for figure in figures.pareto(records, objectives):
                yield plot("Pareto front", figure, "")
        for place, (name, _) in enumerate(objectives):
            title = "Optimization history" if len(objectives) == 1 else f"Optimization history: {name}"
            yield plot(title, figures.history(records, objectives, place), "")
        shares, why = _importances(seen)
        yield plot("Parameter importance (fANOVA)", figures.importances(shares) if shares else None, why)
        keys = (list(shares[0][1]) if shares else figures.parameters(records))[:2]
        surface = figures.contour(records, objectives, keys) if len(keys) == 2 else None
        yield plot(
            "The two most important parameters" if shares else "Two parameters",
            surface,
            "It takes two parameters with two values each among the done trials.",
            wide=True,
        )
        lines = figures.parallel(records, objectives)
        yield plot("Parallel coordinates", lines, "It takes two done trials.", wide=True)
    for metric in CURVES:
        figure = figures.curves(records, objectives, metric)
        yield plot(f"Learning curves: {metric}", figure, f"No trial has logged {metric}.")


def _importances(seen: show.View) -> tuple[list[tuple[str, dict[str, float]]], str]:
    """What part of an objective's variance each parameter explains, most first; or why that isn't known.

    Trials that differ in their seed alone are one, with the mean of their values.
    """
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    done = [record for record in seen.records if record.status == "done" and record.values]
    keys = figures.parameters(done)
    if len(keys) < 2:
        return [], "Only one parameter varies: it explains all there is."
    means = repeats.means(done, keys)
    if len(means) < LEAST:
        what = "trials" if len(means) == len(done) else "trials that differ in more than their seed"
        return [], f"{len(means)} {what} are done; importances take at least {LEAST}."
    averaged = seen.folder.study.averaged(means)
    found = []
    for place, (name, _) in enumerate(seen.folder.objectives):
        if len({values[place] for _, values in means}) == 1:
            continue  # nothing explains what doesn't vary
        try:
            shares = get_param_importances(
                averaged,
                evaluator=FanovaImportanceEvaluator(seed=0),
                target=lambda trial, place=place: trial.values[place],
            )
        except (ValueError, RuntimeError) as error:
            return [], f"They can't be computed: {error}"
        found.append((name, dict(shares)))
    return found, "" if found else "All done trials have the same values."


def _repeats(seen: show.View) -> Iterator[str]:
    objectives = seen.folder.objectives
    found = repeats.groups(seen.records, objectives)
    if not found:
        return
    comparison = repeats.compare(found, objectives)
    told = f"<p>{_text(comparison.sentence[:1].upper() + comparison.sentence[1:])}.</p>" if comparison else ""
    head = ["seeds", f"mean {objectives[0][0]}", "sd", "parameters"]
    rows = [_row(map(_text, repeats.cells(group))) for group in found]
    yield _section(f"{repeats.SEED} as repeats", told + _table(head, rows), wide=True)


def _trials(seen: show.View, out: Path) -> str:
    objectives = seen.folder.objectives
    best = account.best(seen.records, objectives) if len(objectives) == 1 else None
    front = {record.number for record in account.pareto(seen.records, objectives)} if best is None else set()
    keys = show.varied(seen.records)
    names = [name for name, _ in objectives]
    rows = []
    ranked = account.ranked(seen.records, objectives)
    for record in sorted(ranked, key=lambda record: record.number not in front):
        figures_ = [f"{value:.6g}" for value in record.values] or ["–"] * len(names)
        params = [_short(record.params[key]) if key in record.params else "–" for key in keys]
        took = runs.clock(runs.seconds(record.started, record.ended))
        cells = [
            *map(_text, [str(record.number), record.status, *figures_, *params, took]),
            _link(record, out),
        ]
        mark = record.number in front or (best is not None and record.number == best.number)
        reason = f'<td class="reason">{_text(_why(record))}</td>'
        rows.append(_row(cells, ' class="best"' if mark else "", reason))
    return _table(["trial", "status", *names, *keys, "duration", "folder", "reason"], rows)


def _short(value: Any) -> str:
    """A parameter for reading; the command and the CSV have every digit."""
    return f"{value:.5g}" if isinstance(value, float) else shown(value)


def _why(record: Record) -> str:
    broken = [] if record.feasible or not record.values else ["breaks a constraint"]
    return "; ".join([*([record.reason] if record.reason else []), *broken])


def _link(record: Record, out: Path) -> str:
    if not record.out:
        return "–"
    relative = os.path.relpath(record.out, out.parent)
    return f'<a href="{quote(relative)}/">{_text(relative)}</a>'


def _section(title: str, content: str, *, wide: bool = False) -> str:
    return f"<section{' class=wide' if wide else ''}><h2>{_text(title)}</h2>{content}</section>"


def _table(head: Sequence[str], rows: Sequence[str]) -> str:
    cells = "".join(f"<th>{_text(name)}</th>" for name in head)
    return f'<div class="scroll"><table><thead><tr>{cells}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _row(cells: Any, attributes: str = "", last: str = "") -> str:
    return f"<tr{attributes}>{''.join(f'<td>{cell}</td>' for cell in cells)}{last}</tr>"


def _text(words: str) -> str:
    """A text without secrets and without markup."""
    return escape(masked_text(words))


def _finite(tree: Any) -> Any:
    """JSON knows no NaN and no infinity: plotly leaves out what is null."""
    if isinstance(tree, dict):
        return {key: _finite(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_finite(item) for item in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree
