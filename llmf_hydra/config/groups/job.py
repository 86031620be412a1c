"""Group `job`: what to do with the config."""

from dataclasses import dataclass

from llmf_hydra.config.choices import JOBS, planned
from llmf_hydra.config.param import param


@dataclass
class JobConfig:
    name: str = param(
        "train",
        "What to do with the config: train, check it and estimate the cost, or preview the examples.",
        choices=tuple(JOBS),
        planned_choices=planned(JOBS),
    )
    preview_rows: int = param(4, "Examples shown by job=preview.", ge=1, jobs=("preview",))
