"""Group `tracking`: where parameters and metrics go, and what a sweep optimizes (spec table environment, Log)."""

from dataclasses import dataclass

from llmf_hydra.config.param import param

WANDB = {"tracking.wandb": (True,)}
MLFLOW = {"tracking.mlflow": (True,)}


@dataclass
class TrackingConfig:
    files: bool = param(True, "The run's own files: log.jsonl, metrics.json, plots. Always on.")
    wandb: bool = param(False, "Log to Weights & Biases; choose it with tracking=wandb.")
    mlflow: bool = param(False, "Log to MLflow; choose it with tracking=mlflow.")
    project: str = param(
        "llmf_hydra", "Name of the project (wandb) or experiment (MLflow).", env="WANDB_PROJECT"
    )
    run_name: str | None = param(None, "Name of the run; null takes the name of its folder.")
    wandb_disabled: bool = param(
        False, "Leave wandb out even where tracking=wandb is chosen.", env="WANDB_DISABLED", only=WANDB
    )
    wandb_api_key: str | None = param(
        None, "Key of wandb; null logs offline.", env="WANDB_API_KEY", secret=True, only=WANDB
    )
    wandb_entity: str | None = param(None, "Team or user at wandb.", env="WANDB_ENTITY", only=WANDB)
    mlflow_tracking_uri: str | None = param(
        None,
        "Store of MLflow; null takes the SQLite file outputs/mlflow.db.",
        env="MLFLOW_TRACKING_URI",
        only=MLFLOW,
    )
    objective: str | None = param(
        None, "Metric a sweep optimizes; null takes eval_loss, or train_loss where nothing is evaluated."
    )
    direction: str = param(
        "minimize", "Whether the objective should be small or large.", choices=("minimize", "maximize")
    )
    record_vram: bool = param(False, "Log the memory of the GPU.", env="RECORD_VRAM", planned=True)
