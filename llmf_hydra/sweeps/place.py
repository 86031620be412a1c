"""A trial's place in its study, as its launcher hands it down to the worker in the environment.

It isn't written to disk: the URL of a storage may hold a password.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from typing import Self

from llmf_hydra.sweeps.settings import SweeperSettings

VARIABLE = "LLMF_TRIAL"


@dataclass(frozen=True)
class Place:
    """Where a trial reports to while it trains."""

    storage: str
    study: str
    trial_id: int  # Optuna's own
    metric: str  # empty: eval_loss, or the loss of training where nothing is evaluated
    pruner: SweeperSettings  # of which the pruner's settings count

    @contextmanager
    def handed(self) -> Iterator[None]:
        """Within, workers that are started report to this trial."""
        os.environ[VARIABLE] = json.dumps(asdict(self))
        try:
            yield
        finally:
            del os.environ[VARIABLE]

    @classmethod
    def taken(cls) -> Self | None:
        """The place that was handed to this process; None where it is no trial that may be pruned."""
        told = os.environ.pop(VARIABLE, None)
        if told is None:
            return None
        values = json.loads(told)
        known = {entry.name for entry in fields(SweeperSettings)}
        settings = {key: value for key, value in values.pop("pruner").items() if key in known}
        return cls(**values, pruner=SweeperSettings(**settings))
