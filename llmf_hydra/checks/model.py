"""Rules of the model and its precision."""

import re
from collections.abc import Iterator

from llmf_hydra.checks.register import rule
from llmf_hydra.config.choices import INFERENCE_JOBS, METHODS, MODEL_JOBS
from llmf_hydra.config.schema import Config, entries, value_at
from llmf_hydra.errors import Problem

MAPS = ("auto", "balanced", "balanced_low_0", "sequential")  # that Accelerate works out
BY_UNSLOTH = tuple(
    f"model.{name}"
    for name in ("rope_scaling", "flash_attn", "shift_attn", "enable_liger_kernel", "moe_aux_loss_coef",
                 "upcast_layernorm", "upcast_lmhead_output", "device_map", "low_cpu_mem_usage")
)  # fmt: skip
LIGER = "model.enable_liger_kernel"
_PLACES = f"name one of cpu, cuda, {', '.join(MAPS)}, or map modules to devices"


@rule("model.model_name_or_path", jobs=MODEL_JOBS)
def a_model_is_named(cfg: Config) -> Iterator[Problem]:
    """Every run needs a model."""
    if cfg.model.model_name_or_path is None:
        yield Problem(
            "model.model_name_or_path",
            None,
            "no model is named",
            "choose model=smollm2 or model=tiny, or give a folder or hub name",
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


@rule("model.compute_dtype", "method.name")
def trained_weights_need_range(cfg: Config) -> Iterator[Problem]:
    """Weights that are trained overflow in float16: it is for the frozen base under adapters only."""
    if cfg.model.compute_dtype == "float16" and not METHODS[cfg.method.name].adapters:
        yield Problem(
            "model.compute_dtype",
            "float16",
            f"overflows in trained weights (method={cfg.method.name})",
            "choose bfloat16 or float32",
        )


@rule("model.model_max_length", "data.cutoff_len")
def the_model_takes_whole_rows(cfg: Config) -> Iterator[Problem]:
    """model.model_max_length holds the longest row (data.cutoff_len)."""
    length, cutoff = cfg.model.model_max_length, cfg.data.cutoff_len
    if length is not None and length < cutoff:
        what = f"is below data.cutoff_len={cutoff}, to which rows are cut"
        yield Problem(
            "model.model_max_length", length, what, f"lower data.cutoff_len to {length}, or leave it out"
        )


@rule("model.rope_scaling", "stage.name", "rlhf.ref_model")
def positions_are_those_of_the_reference(cfg: Config) -> Iterator[Problem]:
    """model.rope_scaling acts on the trained model: rlhf.ref_model has its own positions, and dynamic, which scales by
    the longest row of a batch, compares a row with itself in another batch."""
    kind = cfg.model.rope_scaling
    if kind is None or not cfg.uses_reference:
        return
    if cfg.rlhf.ref_model is not None:
        what = f"scales the trained model alone, and rlhf.ref_model={cfg.rlhf.ref_model} is another"
        yield Problem("model.rope_scaling", kind, what, "leave rlhf.ref_model out")
    elif kind == "dynamic":
        what = (
            f"scales by the longest row of a batch, and stage={cfg.stage.name} compares rows with a reference"
        )
        yield Problem("model.rope_scaling", kind, what, "choose yarn, linear or llama3")


@rule("model.block_diag_attn", "data.packing", "data.neat_packing", "stage.name")
def blocks_are_rows_of_packs(cfg: Config) -> Iterator[Problem]:
    """model.block_diag_attn keeps the rows of packs apart: there must be packs."""
    if cfg.model.block_diag_attn and not cfg.packs:
        remedy = "leave it out, or set data.packing=true"
        yield Problem("model.block_diag_attn", True, "has no effect: rows are not packed", remedy)


@rule("model.shift_attn", "model.block_diag_attn", "data.neat_packing", "stage.name")
def shifted_groups_hold_one_row(cfg: Config) -> Iterator[Problem]:
    """model.shift_attn cuts a sequence into groups of equal length, in training alone: not where rows of a pack are
    kept apart, nor where a reference, which sees everything, is compared with."""
    if cfg.model.shift_attn and cfg.block_diagonal:
        what = "cuts packs into groups that hold parts of several rows, and data.neat_packing=true keeps rows apart"
        yield Problem("model.shift_attn", True, what, "set data.neat_packing=false")
    if cfg.model.shift_attn and cfg.uses_reference:
        what = f"acts in training alone, and stage={cfg.stage.name} compares with a reference that sees everything"
        yield Problem("model.shift_attn", True, what, "leave it out")


@rule(
    "model.mixture_of_depths",
    "model.block_diag_attn",
    "data.neat_packing",
    "model.shift_attn",
    LIGER,
)
def depths_hold_one_row(cfg: Config) -> Iterator[Problem]:
    """model.mixture_of_depths attends among the tokens that it chooses of a sequence: no packs whose rows are kept
    apart, no other attention, no kernels of Liger."""
    if cfg.model.mixture_of_depths is None:
        return
    apart = "model.block_diag_attn" if cfg.model.block_diag_attn else "data.neat_packing"
    asked = {
        apart: cfg.block_diagonal,
        "model.shift_attn": cfg.model.shift_attn,
        LIGER: cfg.model.enable_liger_kernel,
    }
    for key, contradicts in asked.items():
        if contradicts:
            what = f"contradicts model.mixture_of_depths={cfg.model.mixture_of_depths}, which attends in its own way"
            yield Problem(key, True, what, "leave one of them out")


@rule("model.mixture_of_depths", "model.train_from_scratch")
def routers_are_read_from_files(cfg: Config) -> Iterator[Problem]:
    """model.mixture_of_depths=load reads weights, and model.train_from_scratch reads none."""
    if cfg.model.mixture_of_depths == "load" and cfg.model.train_from_scratch:
        what = "contradicts model.mixture_of_depths=load, which reads a converted model's weights"
        yield Problem("model.train_from_scratch", True, what, "set model.mixture_of_depths=convert")


@rule("model.use_unsloth", *BY_UNSLOTH)
def unsloth_loads_the_model_itself(cfg: Config) -> Iterator[Problem]:
    """model.use_unsloth loads the model with forward passes of its own, which no other switch changes."""
    if cfg.model.use_unsloth:
        for key in BY_UNSLOTH:
            if value_at(cfg, key) != entries()[key].param.default:
                what = "contradicts model.use_unsloth=true, which loads the model in its own way"
                yield Problem(key, value_at(cfg, key), what, "leave one of them out")


@rule("model.moe_aux_loss_coef", "model.use_reentrant_gc", "model.disable_gradient_checkpointing")
def balance_has_a_gradient(cfg: Config) -> Iterator[Problem]:
    """Reentrant checkpoints compute the routers without gradients first, so that the loss that balances experts
    would have none."""
    model = cfg.model
    if model.moe_aux_loss_coef and model.use_reentrant_gc and not model.disable_gradient_checkpointing:
        what = "would have no gradient: reentrant checkpoints compute the routers without one"
        yield Problem("model.moe_aux_loss_coef", f"{model.moe_aux_loss_coef:g}", what,
                      "set model.use_reentrant_gc=false, or model.disable_gradient_checkpointing=true")  # fmt: skip


@rule("model.upcast_layernorm", "model.upcast_lmhead_output", "model.compute_dtype", "training.bf16")
def something_is_upcast(cfg: Config) -> Iterator[Problem]:
    """A model that computes in float32 has nothing to upcast."""
    if cfg.model.compute_dtype != "float32" or cfg.training.pure_bf16:
        return
    idle = ["model.upcast_layernorm", *([] if cfg.training.bf16 else ["model.upcast_lmhead_output"])]
    for key in idle:
        if value_at(cfg, key):
            what = "has no effect with model.compute_dtype=float32"
            yield Problem(key, True, what, "leave it out, or choose bfloat16")


@rule("model.device_map", "launch.nproc_per_node", jobs=MODEL_JOBS)
def weights_have_one_place(cfg: Config) -> Iterator[Problem]:
    """model.device_map is a name or a mapping of modules to devices, for one process: several place the model
    themselves. Weights that are on disk can't be trained through."""
    placed = cfg.model.device_map
    if placed is None:
        return
    if not isinstance(placed, str | int | dict) or isinstance(placed, bool):
        yield Problem("model.device_map", placed, "is neither a name nor a mapping", _PLACES)
    elif isinstance(placed, str) and not _is_place(placed, MAPS):
        yield Problem("model.device_map", placed, "names no device", _PLACES)
    elif isinstance(placed, dict) and "" in placed and len(placed) > 1:
        yield Problem(
            "model.device_map", placed, "maps the whole model ('') and parts of it", "map each part"
        )
    elif isinstance(placed, dict) and "disk" in placed.values() and cfg.job.name not in INFERENCE_JOBS:
        what = "puts weights on disk, through which nothing can be trained"
        yield Problem("model.device_map", placed, what, "name cpu, or a GPU's number")
    elif isinstance(placed, dict) and not all(_is_place(str(place), ("disk",)) for place in placed.values()):
        yield Problem("model.device_map", placed, "maps to something that is no device", "name cpu, or a GPU's "
                      "number")  # fmt: skip
    if cfg.launch.nproc_per_node > 1:
        what = f"is for one process, and each of launch.nproc_per_node={cfg.launch.nproc_per_node} has its own device"
        yield Problem("model.device_map", placed, what, "leave it out")


@rule("model.offload_folder", "model.device_map", jobs=MODEL_JOBS)
def something_is_offloaded(cfg: Config) -> Iterator[Problem]:
    """model.offload_folder is for weights that model.device_map puts on disk."""
    placed, folder = cfg.model.device_map, cfg.model.offload_folder
    may = (isinstance(placed, dict) and "disk" in placed.values()) or (
        isinstance(placed, str) and placed in MAPS
    )
    if folder != entries()["model.offload_folder"].param.default and not may:
        yield Problem("model.offload_folder", folder, "has no effect: model.device_map puts nothing on disk",
                      "leave it out")  # fmt: skip


def _is_place(name: str, others: tuple[str, ...]) -> bool:
    return name in ("cpu", *others) or re.fullmatch(r"(cuda(:\d+)?|\d+)", name) is not None
