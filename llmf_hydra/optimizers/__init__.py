"""Optimizers: `build` makes the parameter groups and takes the algorithm by the name of its file."""
