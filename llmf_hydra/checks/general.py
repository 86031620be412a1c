"""Rules across parameters: each yields a sentence that names the keys, the values and the fix."""

from collections.abc import Iterator

from llmf_hydra.checks import ppo as ppo_rules  # noqa: F401  # they register their rules
from llmf_hydra.checks.register import RULES, rule
from llmf_hydra.config.schema import Config
from llmf_hydra.errors import Problem

__all__ = ["RULES"]


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


@rule("training.eval_strategy", "data.eval_dataset", "data.val_size")
def evaluation_needs_rows(cfg: Config) -> Iterator[Problem]:
    """An evaluation during training needs rows: data.eval_dataset, or data.val_size above 0."""
    if cfg.training.evaluates and not cfg.data.eval_dataset and cfg.data.val_size == 0:
        yield Problem(
            "training.eval_strategy",
            cfg.training.eval_strategy,
            "there are no rows to evaluate on",
            "set data.val_size or data.eval_dataset, or training.eval_strategy=no",
        )


@rule("data.eval_dataset", "data.val_size")
def one_source_of_evaluation(cfg: Config) -> Iterator[Problem]:
    """Rows to evaluate on come from data.eval_dataset or from data.val_size, not from both."""
    if cfg.data.eval_dataset and cfg.data.val_size > 0:
        yield Problem(
            "data.val_size",
            cfg.data.val_size,
            f"contradicts data.eval_dataset={cfg.data.eval_dataset}",
            "give one of them",
        )


@rule("data.val_size")
def held_out_share(cfg: Config) -> Iterator[Problem]:
    """data.val_size is a share below 1, or a whole number of rows."""
    size = cfg.data.val_size
    if size > 1 and size != int(size):
        yield Problem("data.val_size", size, "must be a share below 1 or a whole number of rows")


@rule("model.model_name_or_path")
def a_model_is_named(cfg: Config) -> Iterator[Problem]:
    """Every run needs a model."""
    if cfg.model.model_name_or_path is None:
        yield Problem(
            "model.model_name_or_path",
            None,
            "no model is named",
            "choose model=smollm2 or model=tiny, or give a folder or hub name",
        )


@rule("data.dataset")
def a_dataset_is_named(cfg: Config) -> Iterator[Problem]:
    """Every training needs data."""
    if not cfg.data.dataset:
        yield Problem(
            "data.dataset",
            None,
            "no training data is named",
            f"choose data=demo_{cfg.stage.name}, or name a row of dataset_info.json or a file",
        )


@rule("training.pure_bf16", "model.compute_dtype", "training.bf16")
def one_precision(cfg: Config) -> Iterator[Problem]:
    """pure_bf16 keeps weights and arithmetic in bfloat16: it admits no other type and no mixed precision."""
    training, dtype = cfg.training, cfg.model.compute_dtype
    if training.pure_bf16 and dtype not in (None, "bfloat16"):
        yield Problem(
            "training.pure_bf16", True, f"contradicts model.compute_dtype={dtype}", "give one of them"
        )
    if training.pure_bf16 and training.bf16:
        yield Problem(
            "training.bf16",
            True,
            "is mixed precision and contradicts training.pure_bf16=true",
            "give one of them",
        )
    if training.bf16 and dtype == "bfloat16":
        yield Problem(
            "training.bf16",
            True,
            "has no effect on weights in bfloat16 (model.compute_dtype=bfloat16)",
            "set model.compute_dtype=float32 for mixed precision, or leave training.bf16 out",
        )


@rule("method.lora_alpha", "method.lora_rank")
def lora_has_effect(cfg: Config) -> Iterator[Problem]:
    """A LoRA scaling of 0 would train nothing."""
    if cfg.method.name == "lora" and cfg.method.alpha == 0:
        yield Problem(
            "method.lora_alpha",
            0,
            "scales the LoRA update by 0: nothing would be learned",
            "leave it out for 2 x lora_rank",
        )


@rule("method.lora_target", "method.additional_target")
def targets_are_named(cfg: Config) -> Iterator[Problem]:
    """Lists of modules hold names, separated by commas, and no module is named twice."""
    method = cfg.method
    for key, value in (
        ("method.lora_target", method.lora_target),
        ("method.additional_target", method.additional_target),
    ):
        names = [name.strip() for name in value.split(",")] if value is not None else []
        if any(not name for name in names):
            yield Problem(key, value, "holds an empty name", "write names separated by single commas")
        elif len(set(names)) < len(names):
            yield Problem(key, value, "names a module twice")


@rule("tracking.files")
def own_files_are_written(cfg: Config) -> Iterator[Problem]:
    """The run's own files are always written."""
    if not cfg.tracking.files:
        yield Problem("tracking.files", False, "the run's own files are always written", "leave it out")


@rule("data.val_size", "data.max_samples")
def held_out_leaves_rows(cfg: Config) -> Iterator[Problem]:
    """Rows held out must leave rows to train on."""
    data = cfg.data
    if data.max_samples is not None and data.val_size >= 1 and data.val_size >= data.max_samples:
        yield Problem(
            "data.val_size",
            f"{data.val_size:g}",
            f"leaves nothing to train on of data.max_samples={data.max_samples}",
            "hold out fewer rows",
        )


@rule("data.streaming", "training.max_steps")
def a_stream_has_no_epochs(cfg: Config) -> Iterator[Problem]:
    """Streamed data has no known end: training.max_steps says how long to train."""
    if cfg.data.streaming and cfg.training.max_steps < 1:
        yield Problem(
            "data.streaming",
            True,
            f"has no known end, and training.max_steps={cfg.training.max_steps}",
            "set training.max_steps",
        )


@rule("model.compute_dtype", "method.name")
def trained_weights_need_range(cfg: Config) -> Iterator[Problem]:
    """Weights that are trained overflow in float16: it is for the frozen base under LoRA only."""
    if cfg.model.compute_dtype == "float16" and cfg.method.name != "lora":
        yield Problem(
            "model.compute_dtype",
            "float16",
            f"overflows in trained weights (method={cfg.method.name})",
            "choose bfloat16 or float32",
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


@rule("data.streaming", "launch.nproc_per_node")
def a_stream_has_one_reader(cfg: Config) -> Iterator[Problem]:
    """Rows that are read while training go to one process."""
    if cfg.data.streaming and cfg.launch.nproc_per_node > 1:
        yield Problem("data.streaming", True,
                      f"feeds one process, and launch.nproc_per_node={cfg.launch.nproc_per_node}",
                      "set data.streaming=false: the rows are then read from a file, not kept in memory")  # fmt: skip
