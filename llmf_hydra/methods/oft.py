"""`method=oft`: orthogonal fine-tuning (Qiu et al. 2023, arXiv:2306.07280), by PEFT.

A layer's input is rotated in blocks: `oft_rank` blocks a layer, or blocks of `oft_block_size`.
"""

from typing import cast

import torch
from peft import OFTConfig, PeftModel
from peft.tuners.oft.layer import OFTRotationModule
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from llmf_hydra.config.groups.method import MethodConfig
from llmf_hydra.config.names import names
from llmf_hydra.errors import Problem, Refused
from llmf_hydra.methods import adapters, vision
from llmf_hydra.methods.adapters import check_apart, load, put_on, task_of, tell_of_ties, whole_paths
from llmf_hydra.methods.modules import check_modules, ends_with, is_linear, targets

__all__ = ["apply", "like", "load"]
TARGET = "method.oft_target"


def apply(model: PreTrainedModel, method: MethodConfig, *, pure: bool) -> PeftModel:
    """The model with adapters; `pure` keeps them in the base's type instead of float32.

    Raises Refused if a named module isn't there, can't take an adapter, or can't be cut into such blocks.
    """
    vision.check(model, method)
    extra = names(method.additional_target)
    check_modules(model, "method.additional_target", extra)
    check_apart(model, TARGET, names(method.oft_target), extra)
    tell_of_ties(model, "method.additional_target", extra)  # LoRA can keep them one
    chosen = targets(model, TARGET, names(method.oft_target), vision.frozen(model, method), embeddings=False)
    _check_blocks(model, method, chosen)
    config = OFTConfig(
        task_type=task_of(model),
        r=method.oft_rank,
        oft_block_size=0 if method.oft_rank else method.oft_block_size,
        module_dropout=method.module_dropout,
        target_modules=chosen,
        modules_to_save=whole_paths(model, extra) or None,
    )
    return with_dropout(put_on(model, config, TARGET, method.oft_target, pure=pure))


def like(model: PreTrainedModel | PeftModel, adapter: str, *, pure: bool) -> PeftModel:
    """The model with a fresh adapter of a saved one's shape and dropout. Raises Refused."""
    return with_dropout(adapters.like(model, adapter, pure=pure))


class DroppedRotation(OFTRotationModule):
    """A rotation of which some blocks are left out in training: PEFT builds a dropout, and never calls it."""

    dropout: float

    def _cayley_batch(self, *args: object, **kwargs: object) -> torch.Tensor:
        blocks: torch.Tensor = super()._cayley_batch(*args, **kwargs)  # pyright: ignore[reportArgumentType]
        if not self.training:
            return blocks
        left_out = torch.rand(len(blocks), 1, 1, device=blocks.device) < self.dropout
        identity = torch.eye(blocks.shape[-1], device=blocks.device, dtype=blocks.dtype)
        return torch.where(left_out, identity, blocks)


def with_dropout(model: PeftModel) -> PeftModel:
    """The model, with the dropout of its adapter's config in force."""
    config = model.peft_config["default"]
    if isinstance(config, OFTConfig) and config.module_dropout:
        for module in model.modules():
            if isinstance(module, OFTRotationModule):
                module.__class__ = DroppedRotation
                cast("DroppedRotation", module).dropout = config.module_dropout
    return model


def _check_blocks(model: PreTrainedModel, method: MethodConfig, chosen: list[str]) -> None:
    """Raise Refused for a layer that has no rotation, and where a layer's inputs can't be cut evenly: PEFT would take
    another number in silence."""
    key, size = "method.oft_rank", method.oft_rank
    if not size:
        key, size = "method.oft_block_size", method.oft_block_size
    for path, module in model.named_modules():
        if not is_linear(module) or not any(ends_with(path, name) for name in chosen):
            continue
        if isinstance(module, Conv1D):
            what = f"{path} is a Conv1D, which OFT doesn't rotate"
            raise Refused([Problem(TARGET, method.oft_target, what, "choose method=lora")])
        inputs = int(module.in_features)  # pyright: ignore[reportArgumentType]
        if inputs % size:
            what = f"doesn't divide the {inputs} inputs of {path}"
            fitting = [number for number in range(1, inputs + 1) if inputs % number == 0]
            near = min(fitting, key=lambda number: abs(number - size))
            raise Refused([Problem(key, size, what, f"such as {near}")])
