"""The plots of a study, as plotly.js takes them: `{"data": [...], "layout": {...}}`; the page colors their text."""

import math
from collections.abc import Sequence
from html import escape
from itertools import combinations
from statistics import fmean
from typing import Any

from llmf_hydra.config.secrets import masked_text
from llmf_hydra.errors import shown
from llmf_hydra.sweeps import account
from llmf_hydra.sweeps.repeats import SEED
from llmf_hydra.sweeps.show import curve, varied
from llmf_hydra.sweeps.study import Objectives, Record

Figure = dict[str, Any]
PALETTE = ("#4c8bf5", "#e8833a", "#35a77c", "#c25fd0", "#d64550", "#8f8f2b", "#2aa6b8", "#a0715e")
BEST, PLAIN, FAINT = "#e8833a", "#4c8bf5", "#8a8f98"
SCALE = "Viridis"
FEW = 8  # curves that a reader tells apart by color and legend
POINTS = 400  # per curve; a longer one is thinned
CELLS = 150  # trials of the contour, the best ones: its grid grows with their square


def history(records: Sequence[Record], objectives: Objectives, place: int) -> Figure:
    """An objective's value by trial, and the best so far."""
    name, direction = objectives[place]
    done = [record for record in records if record.status == "done" and record.values]
    pick = max if direction == "maximize" else min
    best: list[float | None] = []
    for record in done:
        known = [value for value in best[-1:] if value is not None]
        best.append(pick([*known, record.values[place]]) if record.feasible else next(iter(known), None))
    able = [record for record in done if record.feasible]
    broken = [record for record in done if not record.feasible]
    data = [_dots("trials", able, place, {"color": PLAIN, "size": 9})]
    if broken:
        data.append(_dots("breaks a constraint", broken, place, {"color": FAINT, "symbol": "x", "size": 9}))
    steps = {"color": BEST, "width": 2, "shape": "hv"}
    line = {"type": "scatter", "mode": "lines", "name": "best so far", "line": steps, "hoverinfo": "skip"}
    data.append({**line, "x": [record.number for record in done], "y": best})
    pruned = [record for record in records if record.status == "pruned" and record.reports]
    if pruned and len(objectives) == 1:
        dots = _dots(
            "pruned (last report)", pruned, place, {"color": FAINT, "symbol": "circle-open", "size": 9}
        )
        data.append(dots)
    layout: Figure = _axes("trial", name) | {"showlegend": True}
    layout["xaxis"]["dtick"] = max(1, len(records) // 8)
    return {"data": data, "layout": layout}


def _dots(name: str, records: Sequence[Record], place: int, marker: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "marker": marker,
        "x": [record.number for record in records],
        "y": [
            record.values[place] if record.values else record.reports[max(record.reports)]
            for record in records
        ],
        "text": [hover(record) for record in records],
        "hovertemplate": "%{text}<extra></extra>",
    }


def parallel(records: Sequence[Record], objectives: Objectives) -> Figure | None:
    """Every done trial as a line across its parameters, colored by the first objective."""
    done = [record for record in records if record.status == "done" and record.values]
    keys = parameters(done)
    if len(done) < 2 or not keys:
        return None
    values = [record.values[0] for record in done]
    axes = [_axis(key, [record.params.get(key) for record in done]) for key in keys]
    axes += [
        {"label": text(name), "values": [record.values[place] for record in done]}
        for place, (name, _) in enumerate(objectives)
    ]
    line = {
        "color": values,
        "colorscale": [[0, BEST], [1, PLAIN]] if objectives[0][1] == "minimize" else [[0, PLAIN], [1, BEST]],
        "showscale": True,
        "colorbar": {"thickness": 10, "outlinewidth": 0},
    }
    trace = {"type": "parcoords", "dimensions": axes, "line": line, "labelangle": -15, "labelside": "top"}
    return {"data": [trace], "layout": {"margin": {"l": 70, "r": 20, "t": 80, "b": 30}}}


def parameters(records: Sequence[Record]) -> list[str]:
    """What varies but for the seed, which is a repeat; the seed where nothing else varies."""
    keys = varied(records)
    return [key for key in keys if key != SEED] or keys


def _axis(key: str, values: Sequence[Any]) -> dict[str, Any]:
    """An axis of numbers, of their logarithms where they span orders of magnitude, or of names."""
    label = text(key.rpartition(".")[2])
    if is_number(key, values) and is_log(values):
        exponents = [math.log10(value) for value in values]
        low, high = math.floor(min(exponents)), math.ceil(max(exponents))
        ticks = list(range(low, high + 1)) if high - low > 1 else sorted(set(exponents))[:6]
        labels = [f"{10.0**tick:.3g}" for tick in ticks]
        ends = {"range": [low, high]} if high - low > 1 else {}
        return {"label": label, "values": exponents, "tickvals": ticks, "ticktext": labels, **ends}
    if is_number(key, values):
        return {"label": label, "values": list(values)}
    names = list(map(shown, _ordered(values)))
    places = [names.index(shown(value)) for value in values]
    return {
        "label": label,
        "values": places,
        "tickvals": list(range(len(names))),
        "ticktext": list(map(text, names)),
    }


def is_number(key: str, values: Sequence[Any]) -> bool:
    """Whether a parameter has an order and a scale; a seed is a name, whatever it is written with."""
    return key != SEED and all(type(value) in (int, float) for value in values)


def _ordered(values: Sequence[Any]) -> list[Any]:
    """Each value once: numbers by size, names by the alphabet."""
    found = {shown(value): value for value in values}.values()
    numbers = all(type(value) in (int, float) for value in found)
    return sorted(found) if numbers else sorted(found, key=shown)


def is_log(values: Sequence[Any]) -> bool:
    """Whether numbers are better told apart on a logarithmic scale."""
    if not values or not all(type(value) in (int, float) and value > 0 for value in values):
        return False
    return max(values) / min(values) >= 50


def contour(records: Sequence[Record], objectives: Objectives, keys: Sequence[str]) -> Figure | None:
    """The first objective over two parameters, averaged over the trials that agree in both."""
    done = [record for record in records if record.status == "done" and record.values]
    best = account.ranked(
        [record for record in done if all(key in record.params for key in keys)], objectives
    )
    cells: dict[tuple[Any, Any], list[float]] = {}
    for record in best[:CELLS]:
        cells.setdefault((record.params[keys[0]], record.params[keys[1]]), []).append(record.values[0])
    if len({x for x, _ in cells}) < 2 or len({y for _, y in cells}) < 2:
        return None
    layout: dict[str, Any] = {"showlegend": False}
    sides = []
    for side, key, values in (
        ("xaxis", keys[0], [x for x, _ in cells]),
        ("yaxis", keys[1], [y for _, y in cells]),
    ):
        numbers = is_number(key, values)
        kind = "category" if not numbers else "log" if is_log(values) else "linear"
        layout[side] = {"title": {"text": text(key)}, "type": kind, "automargin": True}
        if not numbers:
            layout[side]["categoryarray"] = [text(shown(value)) for value in _ordered(values)]
        sides.append(values if numbers else [text(shown(value)) for value in values])
    means = [fmean(values) for values in cells.values()]
    area = {
        "type": "contour",
        "x": sides[0],
        "y": sides[1],
        "z": means,
        "connectgaps": True,
        "colorscale": SCALE,
        "reversescale": objectives[0][1] == "minimize",
        "colorbar": {"thickness": 10, "outlinewidth": 0, "title": {"text": text(objectives[0][0])}},
        "hoverinfo": "skip",
    }
    told = [f"{text(objectives[0][0])} {mean:.6g} ({len(values)} trials)"
            for mean, values in zip(means, cells.values(), strict=True)]  # fmt: skip
    marker = {"color": "#ffffff", "line": {"color": "#222222", "width": 1}, "size": 8}
    dots = {
        "type": "scatter",
        "mode": "markers",
        "x": sides[0],
        "y": sides[1],
        "text": told,
        "marker": marker,
    }
    return {"data": [area, {**dots, "hovertemplate": "%{text}<extra></extra>"}], "layout": layout}


def importances(shares: Sequence[tuple[str, dict[str, float]]]) -> Figure:
    """Bars by parameter; `shares` holds for each objective what part of its variance a parameter explains."""
    keys = list(shares[0][1])[::-1]  # plotly draws from below
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "name": text(name),
            "y": list(map(text, keys)),
            "x": [found.get(key, 0.0) for key in keys],
            "text": [f"{found.get(key, 0.0):.2f}" for key in keys],
            "marker": {"color": color},
        }
        for (name, found), color in zip(shares, PALETTE * len(shares), strict=False)
    ]
    layout = {
        "xaxis": {"title": {"text": "share of the variance"}, "range": [0, 1]},
        "yaxis": {"automargin": True},
    }
    return {"data": data, "layout": layout | {"showlegend": len(shares) > 1}}


def curves(records: Sequence[Record], objectives: Objectives, metric: str) -> Figure | None:
    """A metric of all trials by step: pruned ones dashed, those that failed or were killed dotted, the best bold."""
    known = [(record, found) for record in records if (found := curve(record, metric))]
    if not known:
        return None
    best = account.best(records, objectives) if len(objectives) == 1 else None
    few = len(known) <= FEW
    data = []
    for place, (record, found) in enumerate(known):
        is_best = best is not None and record.number == best.number
        color = PALETTE[place % len(PALETTE)] if few else BEST if is_best else PLAIN
        dash = {"pruned": "dash", "failed": "dot", "killed": "dot"}.get(record.status, "solid")
        steps = _thinned(list(found))
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers" if len(steps) < 4 else "lines",
                "name": f"trial {record.number}" + (f" ({record.status})" if record.status != "done" else ""),
                "x": steps,
                "y": [found[step] for step in steps],
                "line": {"color": color, "dash": dash, "width": 3 if is_best else 1.5},
                "opacity": 1 if few or is_best else 0.45,
                "hovertemplate": f"{hover(record)}<br>step %{{x}}: %{{y:.6g}}<extra></extra>",
            }
        )
    return {"data": data, "layout": _axes("step", metric) | {"showlegend": few}}


def pareto(records: Sequence[Record], objectives: Objectives) -> list[Figure]:
    """The done trials by their objectives, and the front: each pair of two or three, and of three or more all at once
    as lines across them."""
    done = [record for record in records if record.status == "done" and record.values]
    front = {record.number for record in account.pareto(records, objectives)}
    pairs = list(combinations(range(len(objectives)), 2)) if len(objectives) <= 3 else []
    made = [_front_across(done, objectives, front)] if len(objectives) > 2 and len(done) > 1 else []
    for one, other in pairs:
        data = []
        for name, color, chosen in (("beaten", FAINT, False), ("on the front", BEST, True)):
            group = sorted(
                (record for record in done if (record.number in front) is chosen),
                key=lambda record: record.values[one],
            )
            joined = chosen and len(objectives) == 2
            dots = _dots(name, group, other, {"color": color, "size": 9})
            dots |= {
                "x": [record.values[one] for record in group],
                "mode": "lines+markers" if joined else "markers",
            }
            data.append(dots | {"line": {"color": color, "dash": "dot", "width": 1}})
        made.append(
            {"data": data, "layout": _axes(objectives[one][0], objectives[other][0]) | {"showlegend": True}}
        )
    return made


def _front_across(done: Sequence[Record], objectives: Objectives, front: set[int]) -> Figure:
    """Every done trial as a line across the objectives, the better end of each above."""
    drawn = sorted(done, key=lambda record: record.number in front)  # the front last, and so on top
    axes: list[dict[str, Any]] = []
    for place, (name, direction) in enumerate(objectives):
        values = [record.values[place] for record in drawn]
        ends = [max(values), min(values)] if direction == "minimize" else [min(values), max(values)]
        own = {} if ends[0] == ends[1] else {"range": ends}
        axes.append({"label": text(f"{direction} {name}"), "values": values, **own})
    colors = [float(record.number in front) for record in drawn]
    line = {"color": colors, "colorscale": [[0, FAINT], [1, BEST]], "cmin": 0, "cmax": 1}
    trace = {"type": "parcoords", "dimensions": axes, "line": line, "labelside": "top"}
    return {"data": [trace], "layout": {"margin": {"l": 70, "r": 40, "t": 80, "b": 30}}}


def hover(record: Record) -> str:
    """A trial's parameters and its outcome, for plotly's own small HTML."""
    params = [f"{text(key)}={text(shown(value))}" for key, value in record.params.items()]
    return "<br>".join([f"<b>trial {record.number}</b>: {text(account.outcome(record))}", *params])


def text(words: str) -> str:
    """A user's text, without secrets, as plotly shows it unchanged: it reads HTML, and %{...} in templates."""
    return escape(masked_text(words)).replace("%{", "%&#123;")


def _axes(x: str, y: str) -> dict[str, Any]:
    return {
        "xaxis": {"title": {"text": text(x)}, "automargin": True},
        "yaxis": {"title": {"text": text(y)}, "automargin": True},
    }


def _thinned(steps: list[int]) -> list[int]:
    """At most POINTS of the steps, the last one among them."""
    stride = max(1, math.ceil(len(steps) / POINTS))
    return [*steps[:-1:stride], steps[-1]]
