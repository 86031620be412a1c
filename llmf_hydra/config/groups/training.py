"""Group `training`: what the trainer needs beside, under Transformers' names (and spec table finetuning)."""

from dataclasses import dataclass

from llmf_hydra.config.choices import stages
from llmf_hydra.config.param import param

EVALUATES = {"training.eval_strategy": ("steps", "epoch")}
LANGUAGE = {"stage.name": stages(lambda stage: "compute_accuracy" in stage.switched_metrics)}


SCHEDULES = ("linear", "cosine", "constant", "constant_with_warmup", "polynomial", "inverse_sqrt")
WARMS_UP = {"training.lr_scheduler_type": tuple(name for name in SCHEDULES if name != "constant")}
READ_WHOLE = {"data.streaming": (False,)}


@dataclass
class TrainingConfig:
    learning_rate: float = param(5e-5, "Peak learning rate.", gt=0)
    num_train_epochs: float = param(3.0, "Passes over the data.", gt=0)
    max_steps: int = param(-1, "Optimizer steps; goes before num_train_epochs; -1: not limited.", ge=-1)
    per_device_train_batch_size: int = param(1, "Rows a device and forward pass.", ge=1)
    per_device_eval_batch_size: int = param(8, "Rows a device and forward pass at evaluation.", ge=1)
    gradient_accumulation_steps: int = param(1, "Forward passes an optimizer step.", ge=1)
    max_grad_norm: float = param(1.0, "Norm the gradient is clipped to; 0 leaves it.", ge=0)
    lr_scheduler_type: str = param(
        "linear",
        "Course of the learning rate after the warm-up.",
        choices=SCHEDULES,
    )
    warmup_ratio: float = param(
        0.0, "Share of the steps over which the learning rate rises.", ge=0, lt=1, only=WARMS_UP
    )
    warmup_steps: int = param(0, "Steps over which it rises; goes before warmup_ratio.", ge=0, only=WARMS_UP)
    bf16: bool | None = param(
        None, "Mixed precision in bfloat16; null: where the model is float32 and a GPU has it."
    )
    fp16: bool = param(False, "Mixed precision in float16 (needs CUDA).", planned=True)
    pure_bf16: bool = param(False, "Weights and arithmetic in bfloat16, without mixed precision.")
    logging_steps: int = param(10, "Steps between two lines of the log.", ge=1)
    logging_first_step: bool = param(False, "Log the first step too.")
    save_strategy: str = param("steps", "When checkpoints are written.", choices=("no", "steps", "epoch"))
    save_steps: int = param(
        500,
        "Steps between two checkpoints; the last step is saved too.",
        ge=1,
        only={"training.save_strategy": ("steps",)},
    )
    save_total_limit: int | None = param(
        None, "Most checkpoints that are kept.", ge=1, only={"training.save_strategy": ("steps", "epoch")}
    )
    eval_strategy: str = param("no", "When the model is evaluated.", choices=("no", "steps", "epoch"))
    eval_steps: int | None = param(
        None,
        "Steps between two evaluations, beside the last step; null takes logging_steps.",
        ge=1,
        only={"training.eval_strategy": ("steps",)},
    )
    seed: int = param(42, "Seed of the weights, the dropout and the order of the data.", ge=0)
    data_seed: int | None = param(
        None, "Seed of the order of the data; null takes seed.", ge=0, only=READ_WHOLE
    )
    resume_from_checkpoint: str | None = param(
        None, "Checkpoint folder to go on from; `llmf resume RUN` finds a run's own last one."
    )
    disable_shuffling: bool = param(False, "Take the rows in the order of the data.", only=READ_WHOLE)
    plot_loss: bool = param(False, "Draw the loss and the other metrics as training_loss.png and the like.")
    include_effective_tokens_per_second: bool = param(False, "Log tokens a second without padding.")
    compute_accuracy: bool = param(
        False, "Compute the accuracy of tokens at evaluation.", only={**LANGUAGE, **EVALUATES}
    )
    predict_with_generate: bool = param(
        False,
        "Answer the held-out prompts at evaluation, and log BLEU-4, ROUGE and exact matches.",
        only={
            "stage.name": stages(lambda stage: "predict_with_generate" in stage.switched_metrics),
            **EVALUATES,
        },
    )
    early_stopping_patience: int | None = param(
        None, "Stop after this many evaluations in a row without a better model.", ge=1, only=EVALUATES
    )
    load_best_model_at_end: bool = param(
        False, "Keep the model of the best evaluation as final/, instead of the last one.", only=EVALUATES
    )
    metric_for_best_model: str | None = param(
        None,
        "Metric that decides which model is better; null takes tracking.objective, or eval_loss.",
        only=EVALUATES,
    )
    greater_is_better: bool | None = param(
        None, "Whether more of that metric is better; null: not if it is a loss.", only=EVALUATES
    )
    neftune_noise_alpha: float | None = param(
        None, "Noise on the embeddings while training (NEFTune, arXiv:2310.05914).", gt=0
    )
    dataloader_num_workers: int = param(0, "Processes that load batches.", ge=0)

    @property
    def evaluates(self) -> bool:
        """Whether the model is evaluated while it is trained."""
        return self.eval_strategy != "no"

    def best_metric(self, objective: str | None) -> str:
        """The metric that decides which model is better; `objective` is that of a sweep."""
        return self.metric_for_best_model or objective or "eval_loss"
