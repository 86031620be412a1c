"""Rules of the training loop: schedule, evaluation, the best model."""

from collections.abc import Iterator

from llmf_hydra.checks.register import rule
from llmf_hydra.config.choices import LEARNING_JOBS
from llmf_hydra.config.names import names
from llmf_hydra.config.schema import Config, entries, value_at
from llmf_hydra.errors import Problem, did_you_mean

GENERATION_KEYS = tuple(
    f"generation.{name}"
    for name in ("do_sample", "temperature", "top_p", "top_k", "max_length", "max_new_tokens", "repetition_penalty",
                 "skip_special_tokens")
)  # fmt: skip


@rule("training.warmup_steps", "training.warmup_ratio")
def one_warmup(cfg: Config) -> Iterator[Problem]:
    """Give warmup_steps or warmup_ratio, not both."""
    training = cfg.training
    if training.warmup_steps > 0 and training.warmup_ratio > 0:
        yield Problem(
            "training.warmup_steps",
            training.warmup_steps,
            f"contradicts training.warmup_ratio={training.warmup_ratio:g}",
            "give one of them and set the other to 0",
        )


@rule("training.lr_scheduler_type", "training.learning_rate")
def polynomial_has_room_to_fall(cfg: Config) -> Iterator[Problem]:
    """The polynomial schedule ends at 1e-7 and must begin above it."""
    training = cfg.training
    if training.lr_scheduler_type == "polynomial" and training.learning_rate <= 1e-7:
        yield Problem(
            "training.learning_rate",
            training.learning_rate,
            "is not above 1e-7, where polynomial ends",
            "raise it, or choose another training.lr_scheduler_type",
        )


@rule("training.eval_strategy", "data.eval_dataset", "data.val_size", jobs=LEARNING_JOBS)
def evaluation_needs_rows(cfg: Config) -> Iterator[Problem]:
    """An evaluation during training needs rows: data.eval_dataset, or data.val_size above 0."""
    if cfg.training.evaluates and not cfg.data.eval_dataset and cfg.data.val_size == 0:
        yield Problem(
            "training.eval_strategy",
            cfg.training.eval_strategy,
            "there are no rows to evaluate on",
            "set data.val_size or data.eval_dataset, or training.eval_strategy=no",
        )


@rule(
    "training.load_best_model_at_end", "training.save_strategy", "training.save_steps", "training.eval_steps"
)
def best_model_is_saved(cfg: Config) -> Iterator[Problem]:
    """To keep the best model, each evaluation that may be the best needs a checkpoint."""
    training = cfg.training
    if not training.load_best_model_at_end or not training.evaluates:
        return
    if training.save_strategy != training.eval_strategy:
        what = f"needs a checkpoint at each evaluation (training.eval_strategy={training.eval_strategy})"
        yield Problem("training.load_best_model_at_end", True, what,
                      f"set training.save_strategy={training.eval_strategy}")  # fmt: skip
    elif training.save_strategy == "steps":
        every = training.eval_steps or training.logging_steps
        if training.save_steps % every:
            yield Problem("training.save_steps", training.save_steps,
                          f"is no multiple of the {every} steps between evaluations, so the best may not be saved",
                          f"set training.save_steps={every}")  # fmt: skip


@rule("training.metric_for_best_model", "training.greater_is_better")
def best_model_is_asked_for(cfg: Config) -> Iterator[Problem]:
    """Which model is better matters to load_best_model_at_end and early_stopping_patience alone."""
    training = cfg.training
    if training.load_best_model_at_end or training.early_stopping_patience is not None:
        return
    for key in ("training.metric_for_best_model", "training.greater_is_better"):
        value = value_at(cfg, key)
        if value is not None:
            remedy = "set training.load_best_model_at_end=true or training.early_stopping_patience"
            yield Problem(key, value, "has no effect: nothing asks for the best model", remedy)


@rule("training.metric_for_best_model", "tracking.objective", "data.eval_on_each_dataset")
def best_metric_is_logged(cfg: Config) -> Iterator[Problem]:
    """The metric that decides is one that the evaluation of the stage logs."""
    training = cfg.training
    known = _metrics(cfg)
    asked = training.load_best_model_at_end or training.early_stopping_patience is not None
    if not (asked and training.evaluates and known):
        return
    metric = training.best_metric(cfg.tracking.objective)
    if metric.removeprefix("eval_") not in known:
        key = "tracking.objective" if not training.metric_for_best_model and cfg.tracking.objective else ""
        nearest = did_you_mean(metric, [f"eval_{name}" for name in known])
        yield Problem(key or "training.metric_for_best_model", metric, f"stage={cfg.stage.name} logs no such metric",
                      nearest or f"logged are {', '.join(f'eval_{name}' for name in known)}")  # fmt: skip


def _metrics(cfg: Config) -> list[str]:
    """What an evaluation logs, without the prefix eval_; with a dataset's name before it where each has its own."""
    info, data = cfg.stage.info, cfg.data
    switched = [of for switch, of in info.switched_metrics.items() if value_at(cfg, f"training.{switch}")]
    logged = [*info.metrics, *(name for of in switched for name in of)]
    if not data.eval_on_each_dataset:
        return logged
    datasets = names(data.eval_dataset or data.dataset)
    return [f"{dataset}_{name}" for dataset in datasets for name in logged]


@rule("training.predict_with_generate", *GENERATION_KEYS)
def generation_is_used(cfg: Config) -> Iterator[Problem]:
    """Stages that sample no answers read the group generation only with training.predict_with_generate."""
    may = "predict_with_generate" in cfg.stage.info.switched_metrics
    if not may or cfg.training.predict_with_generate:
        return
    for key in GENERATION_KEYS:
        value = value_at(cfg, key)
        if value != entries()[key].param.default:
            yield Problem(key, value, f"has no effect: stage={cfg.stage.name} generates nothing",
                          "set training.predict_with_generate=true, or leave it out")  # fmt: skip


@rule("training.predict_with_generate", "data.train_on_prompt")
def answers_are_apart(cfg: Config) -> Iterator[Problem]:
    """To answer a held-out prompt, it must be known where the prompt ends: not where it is trained too."""
    if cfg.training.predict_with_generate and cfg.data.train_on_prompt:
        yield Problem(
            "training.predict_with_generate",
            True,
            "contradicts data.train_on_prompt=true",
            "give one of them",
        )
