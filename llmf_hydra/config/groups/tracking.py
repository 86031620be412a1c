"""Group `tracking`: experiment trackers and the objective of a sweep (spec table environment, Log)."""

from dataclasses import dataclass

from llmf_hydra.config.param import param

WANDB = {"tracking.wandb": (True,)}
MLFLOW = {"tracking.mlflow": (True,)}


@dataclass
class TrackingConfig:
    files: bool = param(True, "The run's own files (log.jsonl, metrics.json, plots); always on.")
    wandb: bool = param(False, "Log to Weights & Biases; chosen with tracking=wandb.")
    mlflow: bool = param(False, "Log to MLflow; chosen with tracking=mlflow.")
    tensorboard: bool = param(False, "Write TensorBoard event files; chosen with tracking=tensorboard.")
    project: str = param("llmf_hydra", "Project (wandb) or experiment (MLflow).", env="WANDB_PROJECT")
    run_name: str | None = param(
        None, "Run name; null uses the name of the run folder, or a trial's varied parameters."
    )
    wandb_disabled: bool = param(
        False, "Disable wandb even if tracking=wandb is chosen.", env="WANDB_DISABLED", only=WANDB
    )
    wandb_api_key: str | None = param(
        None, "wandb API key; null logs offline.", env="WANDB_API_KEY", secret=True, only=WANDB
    )
    wandb_entity: str | None = param(None, "wandb entity (user or team).", env="WANDB_ENTITY", only=WANDB)
    mlflow_tracking_uri: str | None = param(
        None,
        "MLflow tracking URI; null uses the SQLite file outputs/mlflow.db.",
        env="MLFLOW_TRACKING_URI",
        only=MLFLOW,
    )
    log_model: bool = param(
        False, "Log the final model to wandb (an artifact) and MLflow at the end of the run."
    )
    registered_model: str | None = param(
        None,
        "Name in MLflow's model registry under which the final model is registered; null registers nothing.",
        only=MLFLOW | {"tracking.log_model": (True,)},
    )
    system_metrics: bool = param(
        False, "Log CPU, memory and GPU usage to MLflow under system/; wandb always does.", only=MLFLOW
    )
    objective: str | None = param(
        None, "Metric that runs are compared by; null uses eval_loss, or train_loss without evaluation."
    )
    direction: str = param("minimize", "Direction of the objective.", choices=("minimize", "maximize"))
    record_vram: bool = param(
        False, "Log the peak GPU memory in GB, as vram_allocated and vram_reserved.", env="RECORD_VRAM"
    )
