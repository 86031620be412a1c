"""Studies: many trials of one command line, each a process and a folder of its own.

`sweeper` is what Hydra calls: it reads the `settings` and the `space`, opens the `study` in its `storage` (the ledger
of who runs which trial), has `proposals` draw parameters, and runs `trials` in forks of itself. `inheritance` keeps
unlike trials apart, `place` tells a worker where it reports to; `account`, `repeats`, `show` and `report` say what came
of it.
"""
