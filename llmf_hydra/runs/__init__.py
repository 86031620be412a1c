"""A run's folder and its processes: `folder` claims it, `manifest` says how it came about, `processes` starts the
workers, `signals` and `ranks` are what a worker knows of itself, `checkpoints` finds what to go on from."""
