"""A run's config as Transformers' TrainingArguments."""

from typing import Any, TypeVar

import torch
from transformers import TrainingArguments

from llmf_hydra.config.schema import Config
from llmf_hydra.training.context import RunContext

Arguments = TypeVar("Arguments", bound=TrainingArguments)


def best_model(cfg: Config) -> dict[str, Any]:
    """Transformers' arguments of which evaluation is the best; none where nothing asks for it.

    The objective of a sweep, where one is named, is the metric of its trials too.
    """
    training, tracking = cfg.training, cfg.tracking
    if training.early_stopping_patience is None and not training.load_best_model_at_end:
        return {}
    greater = training.greater_is_better
    if greater is None and training.metric_for_best_model is None and tracking.objective is not None:
        greater = tracking.direction == "maximize"
    metric = training.best_metric(tracking.objective)
    return {
        "metric_for_best_model": metric,
        "greater_is_better": not metric.endswith("loss") if greater is None else greater,
    }


def training_arguments(
    context: RunContext, kind: type[Arguments] = TrainingArguments, **own: Any
) -> Arguments:
    """Transformers' arguments of a run, the same in each stage; `kind` is TRL's where its trainer takes `own` ones."""
    arguments = kind(**_keywords(context), **own)
    # A process trains on one device: nn.DataParallel would replicate the model over all that are visible.
    _ = arguments.device  # reading it counts the GPUs, once
    arguments._n_gpu = 1
    return arguments


def _keywords(context: RunContext) -> dict[str, Any]:
    training, model = context.cfg.training, context.cfg.model
    return {
        "output_dir": str(context.out),
        "learning_rate": training.learning_rate,
        "num_train_epochs": training.num_train_epochs,
        "max_steps": training.max_steps,
        "per_device_train_batch_size": training.per_device_train_batch_size,
        "per_device_eval_batch_size": training.per_device_eval_batch_size,
        "gradient_accumulation_steps": training.gradient_accumulation_steps,
        "max_grad_norm": training.max_grad_norm,
        "lr_scheduler_type": training.lr_scheduler_type,
        "warmup_steps": training.warmup_steps or training.warmup_ratio,  # a number below 1 is a share
        "bf16": context.precision.autocast,
        "ddp_find_unused_parameters": False,  # each weight that is trained has a part in each loss
        "use_cpu": not torch.cuda.is_available(),
        "activation_checkpointing": not model.disable_gradient_checkpointing,
        "activation_checkpointing_kwargs": {"use_reentrant": model.use_reentrant_gc},
        "logging_steps": training.logging_steps,
        "logging_first_step": training.logging_first_step,
        "logging_nan_inf_filter": False,  # a loss that is no number must be seen
        "save_strategy": training.save_strategy,
        "save_steps": training.save_steps,
        "save_total_limit": training.save_total_limit,
        "eval_strategy": training.eval_strategy,
        "eval_steps": training.eval_steps,
        "load_best_model_at_end": training.load_best_model_at_end,
        **best_model(context.cfg),
        "seed": training.seed,
        "data_seed": training.data_seed,
        "train_sampling_strategy": "sequential" if training.disable_shuffling else "random",
        "neftune_noise_alpha": training.neftune_noise_alpha,
        "accelerator_config": {"dispatch_batches": False if context.cfg.data.streaming else None},
        "dataloader_num_workers": training.dataloader_num_workers,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "remove_unused_columns": False,  # the collators take what they need, and name the rows of a batch
        "disable_tqdm": True,  # the tracker's callback shows the progress
        "report_to": [],  # and reports it
    }
