"""Optimizers: `build` makes the parameter groups and takes the algorithm by the name of its file, which is made of the
parts in `common`; the algorithm's `footprint` tells what it takes in memory."""
