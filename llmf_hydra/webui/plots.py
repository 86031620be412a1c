"""Curves and points as Gradio's plots take them.

Such a plot is built anew only where its settings change: with a `color_map` of the series that there are, one that was
built for other series, or for none, doesn't leave the new ones without a colour.
"""

from typing import Any

import gradio as gr
import pandas

COLOURS = ("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#ff8ab7", "#a463f2", "#97bbf5", "#9c6b4e",
           "#9498a0")  # fmt: skip


def lines(points: pandas.DataFrame, series: str) -> gr.LinePlot:
    """A change of a line plot to these points; the column `series` names their lines."""
    return gr.LinePlot(**_shown(points, series))


def dots(points: pandas.DataFrame, series: str) -> gr.ScatterPlot:
    """The same of a scatter plot."""
    return gr.ScatterPlot(**_shown(points, series))


def _shown(points: pandas.DataFrame, series: str) -> dict[str, Any]:
    names = list(dict.fromkeys(map(str, points[series])))
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(names)}
    return {"value": points if names else None, "color_map": colours}
