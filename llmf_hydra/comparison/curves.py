"""The losses of two runs as curves: one HTML page that needs nothing from elsewhere. The one place that uses plotly."""

from importlib import import_module
from pathlib import Path

from llmf_hydra.comparison.outcome import Steps
from llmf_hydra.optional import require

COLOURS = ("#1f77b4", "#d62728")
TITLES = {"loss": "training loss", "eval_loss": "evaluation loss"}


def write_page(file: Path, runs: dict[str, Steps]) -> list[str]:
    """Draw the losses of runs, by their names, over the steps; returns the metrics that were drawn.

    Raises Refused where plotly isn't installed.
    """
    require("plotly", extra="report", key="--plot")
    graphs, plots = import_module("plotly.graph_objects"), import_module("plotly.subplots")
    shown = losses(runs)
    titles = [TITLES.get(metric, metric) for metric in shown]
    figure = plots.make_subplots(rows=len(shown), cols=1, subplot_titles=titles, shared_xaxes=True)
    for row, metric in enumerate(shown, 1):
        for (name, steps), colour in zip(runs.items(), COLOURS, strict=False):
            points = [(step, values[metric]) for step, values in sorted(steps.items()) if metric in values]
            curve = graphs.Scatter(
                x=[step for step, _ in points],
                y=[value for _, value in points],
                name=name,
                legendgroup=name,
                showlegend=row == 1,
                mode="lines+markers",
                line={"color": colour},
            )
            figure.add_trace(curve, row=row, col=1)
    figure.update_xaxes(title_text="step", row=len(shown), col=1)
    figure.update_layout(template="plotly_white", height=380 * len(shown), title=" and ".join(runs))
    figure.write_html(file, include_plotlyjs=True, full_html=True)
    return shown


def losses(runs: dict[str, Steps]) -> list[str]:
    """The losses that the runs have logged: of training, of the evaluation, and of each dataset that has its own."""
    logged = {metric for steps in runs.values() for values in steps.values() for metric in values}
    of_datasets = sorted(name for name in logged if name.startswith("eval_") and name.endswith("_loss"))
    return [name for name in dict.fromkeys(("loss", "eval_loss", *of_datasets)) if name in logged]
