"""What the changes of a network need of the model and of the machine. Without torch."""

import importlib.util
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from llmf_hydra import optional
from llmf_hydra.checks.register import DISK, PACKAGES, rule
from llmf_hydra.checks.values import GPU_DRIVERS
from llmf_hydra.config.choices import LOADING_JOBS
from llmf_hydra.config.names import names
from llmf_hydra.config.schema import Config
from llmf_hydra.errors import Problem
from llmf_hydra.models.architecture.fits import DEPTHS, DEPTHS_FIELD, EXPERTS, SHIFTED, rope_factor
from llmf_hydra.models.config_file import read_config

ROPE, SHIFT, DEPTH, BALANCE = (
    "model.rope_scaling",
    "model.shift_attn",
    "model.mixture_of_depths",
    "model.moe_aux_loss_coef",
)
MODEL = "model.model_name_or_path"
FLASH = "pip install flash-attn --no-build-isolation"


@rule(ROPE, "model.model_max_length", "data.cutoff_len", MODEL, phase=DISK)
def the_input_is_longer_than_the_model(cfg: Config) -> Iterator[Problem]:
    """model.rope_scaling is for inputs longer than the model's own length (max_position_embeddings)."""
    if cfg.model.rope_scaling is None:
        return
    own = (read_config(cfg.model) or {}).get("max_position_embeddings")
    if isinstance(own, int) and cfg.input_length <= own:
        what = f"has no effect: the model takes {own} tokens by itself, and the input has at most {cfg.input_length}"
        yield Problem(ROPE, cfg.model.rope_scaling, what, "raise data.cutoff_len, or leave it out")


@rule(
    ROPE,
    "model.adapter_name_or_path",
    "model.model_max_length",
    "data.cutoff_len",
    jobs=LOADING_JOBS,
    phase=DISK,
)
def adapters_keep_their_positions(cfg: Config) -> Iterator[Problem]:
    """Adapters go on with the model.rope_scaling, and the factor, that they were trained with."""
    own = (read_config(cfg.model) or {}).get("max_position_embeddings")
    for name in names(cfg.model.adapter_name_or_path):
        saved = (read_config(replace(cfg.model, model_name_or_path=name)) or {}).get("rope_parameters")
        if saved is None or not isinstance(own, int):
            continue  # the base as it is, or somewhere else
        kind, factor = saved.get("rope_type"), saved.get("factor")
        if cfg.model.rope_scaling != kind:
            what = f"{name} was trained with {kind}"
            yield Problem(ROPE, cfg.model.rope_scaling, what, f"set {ROPE}={kind}")
        elif factor != rope_factor(cfg.input_length, own):
            what = f"scales by {rope_factor(cfg.input_length, own):g}, and {name} was trained with {factor:g}"
            yield Problem(ROPE, kind, what, f"set model.model_max_length={int(own * factor)}")


@rule(SHIFT, MODEL, phase=DISK)
def attention_can_be_shifted(cfg: Config) -> Iterator[Problem]:
    """model.shift_attn is built for Llama models."""
    if cfg.model.shift_attn:
        yield from _kind(cfg, SHIFT, True, SHIFTED)


@rule(DEPTH, MODEL, phase=DISK)
def the_model_has_its_depths(cfg: Config) -> Iterator[Problem]:
    """model.mixture_of_depths=convert takes a plain model of some kinds, load one that was converted."""
    asked, known = cfg.model.mixture_of_depths, read_config(cfg.model)
    if known is None:
        return
    converted = DEPTHS_FIELD in known
    if asked is None and converted:
        yield Problem(DEPTH, None, "the model was converted: its layers have routers", f"set {DEPTH}=load")
    elif asked == "load" and not converted:
        yield Problem(DEPTH, asked, "the model was not converted", f"set {DEPTH}=convert")
    elif asked == "convert" and converted:
        yield Problem(DEPTH, asked, "the model is converted already", f"set {DEPTH}=load")
    elif asked is not None:
        yield from _kind(cfg, DEPTH, asked, DEPTHS)


@rule(BALANCE, MODEL, phase=DISK)
def the_model_has_experts(cfg: Config) -> Iterator[Problem]:
    """model.moe_aux_loss_coef weighs a loss of models with experts."""
    known = read_config(cfg.model)
    if (
        cfg.model.moe_aux_loss_coef is not None
        and known is not None
        and not any(name in known for name in EXPERTS)
    ):
        yield Problem(
            BALANCE, cfg.model.moe_aux_loss_coef, "has no effect: the model has no experts", "leave it out"
        )


@rule("model.flash_attn", jobs=LOADING_JOBS, phase=PACKAGES)
def flash_attention_is_there(cfg: Config) -> Iterator[Problem]:
    """model.flash_attn=fa2 needs a GPU and the package flash-attn."""
    if cfg.model.flash_attn == "fa2":
        if not _has_gpu(cfg):
            yield Problem(
                "model.flash_attn",
                "fa2",
                "needs CUDA, and this machine has no GPU",
                "set model.flash_attn=auto",
            )
        elif _is_here(cfg) and importlib.util.find_spec("flash_attn") is None:
            yield Problem("model.flash_attn", "fa2", "needs the package flash-attn", FLASH)


@rule("model.enable_liger_kernel", jobs=LOADING_JOBS, phase=PACKAGES)
def liger_is_there(cfg: Config) -> Iterator[Problem]:
    """model.enable_liger_kernel needs a GPU and the package liger-kernel."""
    if cfg.model.enable_liger_kernel:
        yield from _kernels(cfg, "model.enable_liger_kernel", "liger_kernel", "liger")


@rule("model.use_unsloth", jobs=LOADING_JOBS, phase=PACKAGES)
def unsloth_is_there(cfg: Config) -> Iterator[Problem]:
    """model.use_unsloth needs a GPU and the package unsloth."""
    if cfg.model.use_unsloth:
        yield from _kernels(cfg, "model.use_unsloth", "unsloth", "unsloth")


@rule("model.device_map", jobs=LOADING_JOBS, phase=PACKAGES)
def the_devices_are_there(cfg: Config) -> Iterator[Problem]:
    """model.device_map names GPUs where there are some."""
    named = cfg.model.device_map
    places = list(named.values()) if isinstance(named, dict) else [named]
    on_gpu = [place for place in places if _is_gpu(place)]
    if on_gpu and not _has_gpu(cfg):
        yield Problem("model.device_map", named, f"names the GPU {on_gpu[0]}, and this machine has none",
                      "name cpu or disk, or leave it out")  # fmt: skip


def _kernels(cfg: Config, key: str, package: str, extra: str) -> Iterator[Problem]:
    if not _has_gpu(cfg):
        yield Problem(key, True, "needs CUDA, and this machine has no GPU", "leave it out")
    elif _is_here(cfg):
        missing = optional.missing(package, extra=extra, key=key)
        yield from [missing] if missing else []


def _kind(cfg: Config, key: str, value: object, kinds: tuple[str, ...]) -> Iterator[Problem]:
    kind = (read_config(cfg.model) or {}).get("model_type")
    if kind is not None and kind not in kinds:
        what = f"is built for {', '.join(kinds)} models, and this is a {kind} model"
        yield Problem(key, value, what, "leave it out")


def _is_gpu(place: object) -> bool:
    return isinstance(place, int) or str(place).isdigit() or str(place).startswith("cuda")


def _is_here(cfg: Config) -> bool:
    """Whether the workers run on this machine; elsewhere other packages and GPUs count."""
    return not (cfg.launch.use_ray or cfg.launch.use_slurm)


def _has_gpu(cfg: Config) -> bool:
    return not _is_here(cfg) or any(map(Path.exists, GPU_DRIVERS))
