"""Group `training`: the training loop, under Transformers' names (and spec table finetuning)."""

from dataclasses import dataclass

from llmf_hydra.config.choices import stages
from llmf_hydra.config.param import param

EVALUATES = {"training.eval_strategy": ("steps", "epoch")}
LANGUAGE = {"stage.name": stages(lambda stage: "compute_accuracy" in stage.switched_metrics)}


SCHEDULES = ("linear", "cosine", "constant", "constant_with_warmup", "polynomial", "inverse_sqrt")
WARMS_UP = {"training.lr_scheduler_type": tuple(name for name in SCHEDULES if name != "constant")}
READ_WHOLE = {"data.streaming": (False,)}
LARGEST_SEED = 2**32 - 1  # NumPy's generators take no larger one


@dataclass
class TrainingConfig:
    learning_rate: float = param(5e-5, "Peak learning rate.", gt=0)
    num_train_epochs: float = param(3.0, "Number of epochs.", gt=0, le=100_000)
    max_steps: int = param(
        -1, "Number of optimizer steps; overrides num_train_epochs unless it is -1.", ge=-1
    )
    per_device_train_batch_size: int = param(1, "Batch size per device.", ge=1)
    per_device_eval_batch_size: int = param(8, "Evaluation batch size per device.", ge=1)
    gradient_accumulation_steps: int = param(1, "Micro-batches accumulated per optimizer step.", ge=1)
    max_grad_norm: float = param(1.0, "Maximum gradient norm; 0 disables clipping.", ge=0)
    lr_scheduler_type: str = param(
        "linear",
        "Learning-rate schedule after warmup.",
        choices=SCHEDULES,
    )
    warmup_ratio: float = param(
        0.0, "Fraction of the steps used for linear warmup.", ge=0, lt=1, only=WARMS_UP
    )
    warmup_steps: int = param(
        0, "Number of linear warmup steps; overrides warmup_ratio.", ge=0, only=WARMS_UP
    )
    bf16: bool | None = param(
        None,
        "bfloat16 mixed precision; null enables it for trained float32 weights where the hardware supports it.",
    )
    fp16: bool = param(False, "float16 mixed precision (needs CUDA).", planned=True)
    pure_bf16: bool = param(False, "Train in pure bfloat16, without mixed precision.")
    logging_steps: int = param(10, "Steps between log entries.", ge=1)
    logging_first_step: bool = param(False, "Log the first step too.")
    save_strategy: str = param("steps", "When to save checkpoints.", choices=("no", "steps", "epoch"))
    save_steps: int = param(
        500,
        "Steps between checkpoints; the last step is always saved.",
        ge=1,
        only={"training.save_strategy": ("steps",)},
    )
    save_total_limit: int | None = param(
        None,
        "Maximum number of checkpoints to keep.",
        ge=1,
        only={"training.save_strategy": ("steps", "epoch")},
    )
    eval_strategy: str = param("no", "When to evaluate.", choices=("no", "steps", "epoch"))
    eval_steps: int | None = param(
        None,
        "Steps between evaluations; the last step is always evaluated; null uses logging_steps.",
        ge=1,
        only={"training.eval_strategy": ("steps",)},
    )
    seed: int = param(42, "Random seed of initialization, dropout and data order.", ge=0, le=LARGEST_SEED)
    data_seed: int | None = param(
        None, "Random seed of the data order; null uses seed.", ge=0, le=LARGEST_SEED, only=READ_WHOLE
    )
    deterministic: bool = param(
        False,
        "Use deterministic algorithms only, so that a GPU repeats a run bit by bit too; an operation without one "
        "stops the run.",
    )
    resume_from_checkpoint: str | None = param(
        None, "Checkpoint folder to start from; `llmf resume RUN` finds a run's own last checkpoint."
    )
    disable_shuffling: bool = param(
        False, "Keep the order of the data instead of shuffling it.", only=READ_WHOLE
    )
    plot_loss: bool = param(False, "Plot the loss and other metrics to PNG files.")
    include_effective_tokens_per_second: bool = param(False, "Log non-padding tokens per second.")
    compute_accuracy: bool = param(
        False, "Compute token accuracy at evaluation.", only={**LANGUAGE, **EVALUATES}
    )
    predict_with_generate: bool = param(
        False,
        "Generate answers at evaluation and log BLEU-4, ROUGE and exact match.",
        only={
            "stage.name": stages(lambda stage: "predict_with_generate" in stage.switched_metrics),
            **EVALUATES,
        },
    )
    early_stopping_patience: int | None = param(
        None, "Stop after this many evaluations without improvement.", ge=1, only=EVALUATES
    )
    load_best_model_at_end: bool = param(
        False, "Save the best evaluated model to final/ instead of the last one.", only=EVALUATES
    )
    metric_for_best_model: str | None = param(
        None,
        "Metric that decides which model is best; null uses tracking.objective, else eval_loss.",
        only=EVALUATES,
    )
    greater_is_better: bool | None = param(
        None, "Whether a higher metric is better; null means yes unless it is a loss.", only=EVALUATES
    )
    neftune_noise_alpha: float | None = param(
        None, "NEFTune: scale of the noise added to embeddings while training (arXiv:2310.05914).", gt=0
    )
    activation_memory: int | None = param(
        None,
        "MiB that a step's activations may take: as many layers are checkpointed as that needs, the others keep "
        "theirs, and freed memory goes back to the system at once. -1 takes what the machine has free; null "
        "checkpoints every layer, or none with "
        "model.disable_gradient_checkpointing.",
        ge=-1,
        only={"model.disable_gradient_checkpointing": (False,)},
    )
    dataloader_num_workers: int = param(0, "Worker processes of the data loader.", ge=0, le=256)

    @property
    def evaluates(self) -> bool:
        """Whether the model is evaluated while it is trained."""
        return self.eval_strategy != "no"

    def best_metric(self, objective: str | None) -> str:
        """The metric that decides which model is better; `objective` is that of a sweep."""
        return self.metric_for_best_model or objective or "eval_loss"
