"""Group `job`: what is done with the composed config."""

from dataclasses import dataclass

from llmf_hydra.config.param import param


@dataclass
class Job:
    name: str = param(
        "train",
        "What to do: train, or look (check, preview) before training.",
        choices=("train", "predict", "evaluate", "export", "chat", "api", "webui", "check", "preview"),
        planned_choices=("predict", "evaluate", "export", "chat", "api", "webui"),
    )
    preview_rows: int = param(4, "Rows that job=preview shows.", ge=1, jobs=("preview",))
