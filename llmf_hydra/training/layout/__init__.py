"""How batches are laid out: `rows` decides whether the rows of a run are padded or lie end to end; `largest_batch` says
how large they become, for the estimate of memory.
"""
