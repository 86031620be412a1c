"""Group `job`: what to do with the config."""

from dataclasses import dataclass

from llmf_hydra.config.choices import INFERENCE_JOBS, JOBS, planned
from llmf_hydra.config.param import param


@dataclass
class JobConfig:
    name: str = param(
        "train",
        "What to do with the config: train, check it and estimate the cost, preview the examples, or use a model.",
        choices=tuple(JOBS),
        planned_choices=planned(JOBS),
    )
    from_run: str | None = param(
        None,
        "Folder of a finished run whose model, adapter, template and quantization are used; from_run=RUN for short.",
        jobs=INFERENCE_JOBS,
    )
    preview_rows: int = param(4, "Examples shown by job=preview.", ge=1, jobs=("preview",))
