"""Rules of the methods: what is trained, and on which adapters."""

import re
from collections.abc import Iterator
from pathlib import Path

from llmf_hydra.checks.register import DISK, rule
from llmf_hydra.checks.residual import residual_of
from llmf_hydra.config.choices import LEARNING_JOBS, MODEL_JOBS
from llmf_hydra.config.names import is_pattern
from llmf_hydra.config.schema import Config, entries, value_at
from llmf_hydra.errors import Problem

TARGETS = ("method.lora_target", "method.oft_target")
# They take a learning rate for each group of weights; the others build groups of their own.
LORAPLUS_OPTIMIZERS = ("adamw", "adafactor", "sgd")


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


@rule(*TARGETS, "method.additional_target")
def targets_are_named(cfg: Config) -> Iterator[Problem]:
    """Lists of modules hold names, separated by commas, and no module is named twice; a name with signs such as * is a
    regular expression."""
    for key in (*TARGETS, "method.additional_target"):
        value = value_at(cfg, key)
        names = [name.strip() for name in value.split(",")] if value is not None else []
        if any(not name for name in names):
            yield Problem(key, value, "holds an empty name", "write names separated by single commas")
        elif len(set(names)) < len(names):
            yield Problem(key, value, "names a module twice")
        if key in TARGETS:
            yield from _bad_patterns(key, [name for name in names if is_pattern(name)])


def _bad_patterns(key: str, patterns: list[str]) -> Iterator[Problem]:
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            remedy = "such as .*layers[.][01][.].*q_proj; commas separate names, so a pattern holds none"
            yield Problem(key, pattern, f"is no regular expression: {error}", remedy)


@rule("method.lora_target", "stage.name")
def head_takes_no_adapter(cfg: Config) -> Iterator[Problem]:
    """LoRA is not put on the output head, whose weight is read directly where only trained tokens are scored."""
    names = [name.strip() for name in cfg.method.lora_target.split(",")]
    if cfg.method.name == "lora" and "lm_head" in names and cfg.stage.info.token_logprobs:
        yield Problem("method.lora_target", cfg.method.lora_target, f"stage={cfg.stage.name} takes no LoRA on lm_head",
                      "train it whole: method.additional_target=lm_head")  # fmt: skip


@rule("method.freeze_trainable_layers", "method.freeze_extra_modules")
def freeze_trains_something(cfg: Config) -> Iterator[Problem]:
    """method=freeze trains some layer, or a module outside the layers."""
    method = cfg.method
    if method.name == "freeze" and method.freeze_trainable_layers == 0 and not method.freeze_extra_modules:
        yield Problem("method.freeze_trainable_layers", 0, "nothing would be trained",
                      "give a number of layers, or name method.freeze_extra_modules")  # fmt: skip


@rule("method.freeze_trainable_modules", "method.freeze_extra_modules")
def frozen_modules_are_named(cfg: Config) -> Iterator[Problem]:
    """Lists of modules hold names, separated by commas."""
    for key in ("method.freeze_trainable_modules", "method.freeze_extra_modules"):
        value = value_at(cfg, key)
        if value is not None and any(not name.strip() for name in value.split(",")):
            yield Problem(key, value, "holds an empty name", "write names separated by single commas")


@rule("model.adapter_name_or_path", "rlhf.ref_model_adapters", "rlhf.reward_model_adapters", jobs=MODEL_JOBS)
def adapters_are_named(cfg: Config) -> Iterator[Problem]:
    """Lists of adapters hold names, separated by commas."""
    for key in ("model.adapter_name_or_path", "rlhf.ref_model_adapters", "rlhf.reward_model_adapters"):
        value = value_at(cfg, key)
        if value is not None and any(not name.strip() for name in value.split(",")):
            yield Problem(key, value, "holds an empty name", "write names separated by single commas")


@rule("method.create_new_adapter", "model.adapter_name_or_path")
def new_adapter_is_put_on_others(cfg: Config) -> Iterator[Problem]:
    """method.create_new_adapter needs adapters to be put on."""
    if cfg.method.create_new_adapter and not cfg.model.adapter_name_or_path:
        what = "has no effect: without model.adapter_name_or_path the adapter is new anyway"
        yield Problem("method.create_new_adapter", True, what, "leave it out")


@rule("method.loraplus_lr_ratio", "optimizer.name")
def loraplus_needs_groups(cfg: Config) -> Iterator[Problem]:
    """LoRA+ gives groups of weights a learning rate of their own, which some optimizers don't take."""
    ratio, optimizer = cfg.method.loraplus_lr_ratio, cfg.optimizer.name
    if ratio is not None and optimizer not in LORAPLUS_OPTIMIZERS:
        what = f"optimizer={optimizer} makes its own groups of weights, in which the ratio would be lost"
        choices = " or ".join(f"optimizer={name}" for name in LORAPLUS_OPTIMIZERS)
        yield Problem("method.loraplus_lr_ratio", ratio, what, f"choose {choices}")


@rule("method.loraplus_lr_embedding", "method.loraplus_lr_ratio")
def embeddings_have_a_rate_in_loraplus(cfg: Config) -> Iterator[Problem]:
    """method.loraplus_lr_embedding acts only where method.loraplus_lr_ratio is given."""
    given = cfg.method.loraplus_lr_embedding
    if (
        cfg.method.loraplus_lr_ratio is None
        and given != entries()["method.loraplus_lr_embedding"].param.default
    ):
        what = "has no effect without method.loraplus_lr_ratio"
        yield Problem("method.loraplus_lr_embedding", given, what, "give the ratio, or leave it out")


@rule("method.pissa_convert", "method.use_dora")
def dora_stays_pissa(cfg: Config) -> Iterator[Problem]:
    """A PiSSA adapter with DoRA's magnitudes isn't a difference of two products, so it can't be converted."""
    if cfg.method.pissa_convert and cfg.method.use_dora:
        what = "DoRA normalizes the sum of base and adapter, which no plain LoRA adapter can say"
        yield Problem("method.pissa_convert", True, what, "leave it out, or set method.use_dora=false")


@rule("method.pissa_init", "quantization.quantization_bit")
def pissa_needs_whole_weights(cfg: Config) -> Iterator[Problem]:
    """PiSSA decomposes the weights of the base, so they must not be quantized."""
    bits = cfg.quantization.quantization_bit
    if cfg.starts_on_residual and bits is not None:
        what = f"quantized weights can't be decomposed (quantization.quantization_bit={bits})"
        yield Problem("method.pissa_init", True, what, "leave one of them out")


@rule("method.pissa_init", "rlhf.reward_model_type", "rlhf.reward_model")
def a_reward_adapter_needs_the_base(cfg: Config) -> Iterator[Problem]:
    """PiSSA takes a part of the base into the policy's adapter, so a reward adapter can't sit on that base."""
    adapter = cfg.rlhf.reward_model is not None and cfg.rlhf.reward_model_type == "lora"
    if cfg.stage.name == "ppo" and cfg.starts_on_residual and adapter:
        what = "leaves a residual in the base, on which the reward adapter would give other scores"
        remedy = "set rlhf.reward_model_type=full or api, or method.pissa_init=false"
        yield Problem("method.pissa_init", True, what, remedy)


@rule("rlhf.reward_model", "rlhf.reward_model_type", jobs=LEARNING_JOBS, phase=DISK)
def a_reward_adapter_is_converted(cfg: Config) -> Iterator[Problem]:
    """A reward adapter stands on the model's own weights: one of PiSSA must be converted."""
    rlhf = cfg.rlhf
    if cfg.stage.name == "ppo" and rlhf.reward_model_type == "lora" and residual_of(rlhf.reward_model or ""):
        what = "is a PiSSA adapter on the residual of its base"
        remedy = "train it with method.pissa_convert=true, or merge it and set rlhf.reward_model_type=full"
        yield Problem("rlhf.reward_model", rlhf.reward_model, what, remedy)


@rule("method.oft_rank", "method.oft_block_size")
def oft_has_one_size(cfg: Config) -> Iterator[Problem]:
    """OFT is cut by the number of blocks or by their size, not by both and not by neither."""
    method = cfg.method
    default = entries()["method.oft_block_size"].param.default
    if method.name != "oft":
        return
    if method.oft_rank and method.oft_block_size not in (0, default):
        what = f"contradicts method.oft_block_size={method.oft_block_size}: each follows from the other"
        yield Problem("method.oft_rank", method.oft_rank, what, "give one of them")
    elif not method.oft_rank and not method.oft_block_size:
        what = "gives no size, and method.oft_rank=0 none either"
        yield Problem("method.oft_block_size", 0, what, "give one of them")
    elif method.oft_block_size == 1 and not method.oft_rank:
        yield Problem(
            "method.oft_block_size", 1, "rotates single numbers, which has no effect", "take 2 or more"
        )


@rule("method.use_llama_pro", "method.freeze_trainable_layers")
def llama_pro_counts_its_blocks(cfg: Config) -> Iterator[Problem]:
    """With method=freeze, method.use_llama_pro takes method.freeze_trainable_layers as the number of added blocks."""
    method = cfg.method
    if method.use_llama_pro and method.name == "freeze" and method.freeze_trainable_layers < 1:
        what = "with method.use_llama_pro=true it is the number of blocks that were added"
        yield Problem(
            "method.freeze_trainable_layers", method.freeze_trainable_layers, what, "give 1 or more"
        )


@rule("method.train_mm_proj_only", "method.freeze_vision_tower")
def the_projector_or_the_tower(cfg: Config) -> Iterator[Problem]:
    """method.train_mm_proj_only trains the projector alone, so the vision tower stays frozen."""
    if cfg.method.train_mm_proj_only and not cfg.method.freeze_vision_tower:
        what = "with method.train_mm_proj_only=true nothing but the projector is trained"
        yield Problem("method.freeze_vision_tower", False, what, "leave it out")


@rule("model.adapter_folder", "model.adapter_name_or_path", jobs=MODEL_JOBS)
def a_folder_of_adapters_that_are_named(cfg: Config) -> Iterator[Problem]:
    """model.adapter_folder lies in the adapters that model.adapter_name_or_path names, and is a relative path."""
    folder = cfg.model.adapter_folder
    if folder is None:
        return
    if not cfg.model.adapter_name_or_path:
        what = "has no effect without model.adapter_name_or_path"
        yield Problem("model.adapter_folder", folder, what, "leave it out")
    elif not folder.strip("/. ") or folder.startswith("/") or ".." in Path(folder).parts or "," in folder:
        yield Problem(
            "model.adapter_folder", folder, "is no folder within an adapter", "give a relative path"
        )
