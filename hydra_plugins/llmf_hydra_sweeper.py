"""Where Hydra looks for plugins, and the only package it takes them from: the sweeper of llmf_hydra."""

from llmf_hydra.sweeps import grid


class GridSweeper(grid.GridSweeper):
    """The sweeper behind `-m`; see `llmf_hydra/sweeps/grid.py`."""
