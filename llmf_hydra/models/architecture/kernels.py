"""Kernels of other packages, which need CUDA."""

import torch
from transformers import PreTrainedModel

from llmf_hydra import optional
from llmf_hydra.config.groups.model import ModelConfig
from llmf_hydra.errors import Problem, Refused
from llmf_hydra.models.network import Network

UNSLOTH = "model.use_unsloth"


def apply_liger(model: PreTrainedModel) -> None:
    """Put Liger's kernels into this model alone: norms, RoPE and MLP. Raises Refused where there are none for it.

    The loss stays ours, which reads the output head for the trained tokens only; so its fused cross-entropy is off.
    """
    optional.require("liger_kernel", extra="liger", key="model.enable_liger_kernel")
    from liger_kernel.transformers import _apply_liger_kernel_to_instance  # pyright: ignore[reportMissingImports]
    from liger_kernel.transformers.monkey_patch import (  # pyright: ignore[reportMissingImports]
        MODEL_TYPE_TO_APPLY_LIGER_FN,
    )

    kind = model.config.get_text_config().model_type
    if kind not in MODEL_TYPE_TO_APPLY_LIGER_FN:
        what = f"Liger has no kernels for a {kind} model"
        raise Refused([Problem("model.enable_liger_kernel", True, what, "leave it out")])
    _apply_liger_kernel_to_instance(model=model, fused_linear_cross_entropy=False, cross_entropy=False)


def load_unsloth(model: ModelConfig, where: str, dtype: torch.dtype) -> PreTrainedModel:
    """The model as unsloth loads it, with its own forward passes. Raises Refused where it knows no such model.

    It is unquantized and without adapters: PEFT adds these, and `patch_unsloth` then puts in unsloth's kernels.
    """
    unsloth = optional.require("unsloth", extra="unsloth", key=UNSLOTH)
    try:
        loaded, _ = unsloth.FastLanguageModel.from_pretrained(
            model_name=where,
            max_seq_length=model.model_max_length,
            dtype=dtype,
            load_in_4bit=False,
            token=model.hf_hub_token,
            revision=model.model_revision,
            trust_remote_code=model.trust_remote_code,
            fix_tokenizer=False,
            use_gradient_checkpointing=False,  # ours, as the other switches say
        )
    except NotImplementedError as error:
        raise Refused([Problem(UNSLOTH, True, str(error).strip().splitlines()[0], "leave it out")]) from error
    return loaded


def patch_unsloth(model: Network) -> Network:
    """A model of `load_unsloth` that has adapters now, with unsloth's kernels for them."""
    unsloth = optional.require("unsloth", extra="unsloth", key=UNSLOTH)
    return unsloth.FastLanguageModel.patch_peft_model(model, use_gradient_checkpointing=False)
