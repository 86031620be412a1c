"""`draw`: a run's curves as PNG files, from its `log.jsonl` alone."""

from pathlib import Path
from typing import Any

from llmf_hydra.tracking.files import read_log

# metric -> file; drawn where the log has it, together with the metric's eval_ twin.
PLOTS = {
    "loss": "training_loss.png",
    "eval_loss": "eval_loss.png",
    "rewards/accuracies": "rewards_accuracies.png",
    "rewards/margins": "rewards_margins.png",
    "accuracy": "accuracy.png",
    "mean_token_accuracy": "mean_token_accuracy.png",
    "reward": "reward.png",
    "objective/rlhf_reward": "objective_rlhf_reward.png",
    "objective/kl": "objective_kl.png",
}
OWN_PLOT = {"loss"}  # their twin has a plot of its own

Series = dict[int, float]  # step -> value


def draw(log: Path, out: Path) -> list[Path]:
    """Draw each metric worth a look into a PNG in `out`; returns the files: none for an empty log."""
    records = read_log(log)
    drawn = []
    for metric, file in PLOTS.items():
        curves = {key: _series(records, key) for key in _keys(metric)}
        curves = {key: series for key, series in curves.items() if series}
        if curves:
            _draw_one(curves, out / file, title=metric)
            drawn.append(out / file)
    return drawn


def _keys(metric: str) -> list[str]:
    return [metric] if metric in OWN_PLOT else [metric, f"eval_{metric}"]


def _series(records: list[dict[str, Any]], key: str) -> Series:
    """The values of a metric by step; a step that was done again counts as it was the last time."""
    series = {int(record["step"]): record[key] for record in records if key in record}
    return dict(sorted(series.items()))


def _draw_one(curves: dict[str, Series], file: Path, title: str) -> None:
    # The object interface draws with Agg and leaves no state, no window and no backend behind.
    from matplotlib.figure import Figure

    # Margins are fixed: to measure the labels first would take as long as all the drawing.
    figure = Figure(figsize=(7, 4), dpi=120)
    axes = figure.add_axes((0.1, 0.13, 0.87, 0.78))
    for color, (key, series) in zip(("tab:blue", "tab:orange"), curves.items(), strict=False):
        steps, values = list(series), list(series.values())
        few = len(values) < 10  # the line itself says all
        marker = "o" if few else None
        axes.plot(steps, values, color=color, alpha=1 if few else 0.3, marker=marker, markersize=4, label=key)
        if not few:
            axes.plot(steps, smooth(values), color=color, label=f"{key}, smoothed")
    axes.set(xlabel="step", title=title)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file, pil_kwargs={"compress_level": 1})


def smooth(values: list[float]) -> list[float]:
    """The running mean of the values, older ones counting less: over about a tenth of them."""
    keep = 1 - 1 / max(2.0, len(values) / 10)
    total = weight = 0.0
    smoothed = []
    for value in values:
        if value == value:  # a NaN would spoil all that come after it
            total, weight = keep * total + value, keep * weight + 1
        smoothed.append(total / weight if weight else value)
    return smoothed
