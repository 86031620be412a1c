"""Group `job`: what is done with the composed config."""

from dataclasses import dataclass

from llmf_hydra.config.choices import JOBS, planned
from llmf_hydra.config.param import param


@dataclass
class JobConfig:
    name: str = param(
        "train",
        "What to do: train, or look (check, preview) before training.",
        choices=tuple(JOBS),
        planned_choices=planned(JOBS),
    )
    preview_rows: int = param(4, "Rows that job=preview shows.", ge=1, jobs=("preview",))
