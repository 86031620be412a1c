"""The lengths of rows as a picture: how many rows are how long, and where they are cut."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from llmf_hydra.data.tokenize.columns import row_lengths

__all__ = ["draw_lengths", "row_lengths"]


def draw_lengths(lengths: Mapping[str, np.ndarray], cutoff_len: int, path: Path) -> None:
    """Write a PNG with one histogram a dataset; `lengths` are tokens, shape (rows,), by dataset."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    longest = max((int(part.max()) for part in lengths.values() if len(part)), default=1)
    bins = np.linspace(0, longest + 1, min(longest + 1, 50) + 1)
    for name, part in lengths.items():
        axes.hist(part, bins=bins.tolist(), alpha=0.6, label=f"{name} ({len(part)} rows)")
    if longest >= cutoff_len * 0.8:
        axes.axvline(cutoff_len, color="black", linestyle="--", label=f"data.cutoff_len={cutoff_len}")
    axes.set_xlabel("tokens")
    axes.set_ylabel("rows")
    axes.legend()
    figure.savefig(path, dpi=120)
