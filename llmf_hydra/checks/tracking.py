"""Rules of the trackers."""

import re
from collections.abc import Iterator

from llmf_hydra import optional
from llmf_hydra.checks.register import PACKAGES, rule
from llmf_hydra.config.schema import Config
from llmf_hydra.errors import Problem

METRIC = re.compile(r"[A-Za-z]")


@rule("tracking.files")
def own_files_are_written(cfg: Config) -> Iterator[Problem]:
    """The run's own files are always written."""
    if not cfg.tracking.files:
        yield Problem("tracking.files", False, "the run's own files are always written", "leave it out")


@rule("tracking.objective")
def the_objective_is_a_metric(cfg: Config) -> Iterator[Problem]:
    """tracking.objective is the name of a logged metric, such as eval_loss."""
    objective = cfg.tracking.objective
    if objective is not None and not METRIC.match(objective):
        logged = [f"eval_{name}" for name in cfg.stage.info.metrics]
        yield Problem(
            "tracking.objective", objective, "is no name of a metric", f"such as {', '.join(logged)}"
        )


@rule("tracking.tensorboard", phase=PACKAGES)
def tensorboard_is_installed(cfg: Config) -> Iterator[Problem]:
    """tracking=tensorboard needs the package tensorboard."""
    lacking = optional.missing("tensorboard", extra="tensorboard", key="tracking.tensorboard")
    if cfg.tracking.tensorboard and lacking is not None:
        yield lacking


@rule("tracking.log_model")
def a_tracker_takes_the_model(cfg: Config) -> Iterator[Problem]:
    """tracking.log_model needs a tracker that stores models: wandb or MLflow."""
    tracking = cfg.tracking
    if tracking.log_model and not (tracking.wandb or tracking.mlflow):
        what = "no tracker of this run stores models"
        yield Problem("tracking.log_model", True, what, "tracking=wandb or tracking=mlflow, or leave it out")
