"""What every stage's trainer is built from, and the arguments that all trainers share."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import (
    EarlyStoppingCallback,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
)

from llmf_hydra.config.schema import Config
from llmf_hydra.models.precision import Precision

OPTIM = {"adamw": "adamw_torch", "adafactor": "adafactor", "sgd": "sgd"}  # our choice -> Transformers' name


@dataclass(frozen=True)
class RunContext:
    """A run's pieces, loaded and ready."""

    cfg: Config
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    train: Dataset
    eval: Dataset | dict[str, Dataset] | None
    precision: Precision
    callbacks: list[TrainerCallback]
    out: Path
    sources: tuple[str, ...] = ()  # names of the datasets, by the number in the rows' column `source`
    stops: tuple[str, ...] = ()  # texts with which the chat template ends an answer

    @property
    def pad_id(self) -> int:
        """The padding token, which every tokenizer that we load has."""
        return self.tokenizer.pad_token_id  # pyright: ignore


Parts = RunContext


def attention_of(config: PretrainedConfig) -> str:
    """The attention that computes: sdpa, eager, flash_attention_2 ..."""
    return str(config._attn_implementation)


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


def shared_pieces(parts: RunContext) -> dict[str, Any]:
    """Keyword arguments of every trainer; early stopping is added to the callbacks where it is asked for."""
    patience = parts.cfg.training.early_stopping_patience
    stopping = [EarlyStoppingCallback(patience)] if patience is not None else []
    return {
        "parts": parts,
        "model": parts.model,
        "train_dataset": parts.train,
        "eval_dataset": parts.eval,
        "processing_class": parts.tokenizer,
        "callbacks": [*parts.callbacks, *stopping],
    }


def shared_arguments(parts: RunContext) -> dict[str, Any]:
    """Keyword arguments of Transformers' TrainingArguments, as far as they are the same in each stage."""
    training, optimizer, model = parts.cfg.training, parts.cfg.optimizer, parts.cfg.model
    return {
        "output_dir": str(parts.out),
        "learning_rate": training.learning_rate,
        "num_train_epochs": training.num_train_epochs,
        "max_steps": training.max_steps,
        "per_device_train_batch_size": training.per_device_train_batch_size,
        "per_device_eval_batch_size": training.per_device_eval_batch_size,
        "gradient_accumulation_steps": training.gradient_accumulation_steps,
        "max_grad_norm": training.max_grad_norm,
        "lr_scheduler_type": training.lr_scheduler_type,
        "warmup_steps": training.warmup_steps or training.warmup_ratio,  # a number below 1 is a share
        "optim": OPTIM[optimizer.name],
        "weight_decay": optimizer.weight_decay,
        "adam_beta1": optimizer.adam_beta1,
        "adam_beta2": optimizer.adam_beta2,
        "adam_epsilon": optimizer.adam_epsilon,
        "bf16": parts.precision.autocast,
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
        **best_model(parts.cfg),
        "seed": training.seed,
        "data_seed": training.data_seed,
        "train_sampling_strategy": "sequential" if training.disable_shuffling else "random",
        "neftune_noise_alpha": training.neftune_noise_alpha,
        "dataloader_num_workers": training.dataloader_num_workers,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "remove_unused_columns": False,  # the collators take what they need, and name the rows of a batch
        "disable_tqdm": True,  # the tracker's callback shows the progress
        "report_to": [],  # and reports it
    }
