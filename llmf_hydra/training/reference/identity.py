"""What the numbers of a reference depend on beside their inputs, so that runs share those that are the same.

The name of a folder in the cache is the digest of all of it: weights, config and precision of the model, the code and
the libraries that compute, and the kind of device, since each rounds in its own way.
"""

import json
import platform
from dataclasses import asdict, replace
from pathlib import Path

import accelerate
import peft
import torch
import transformers
from peft import PeftModel

from llmf_hydra import paths
from llmf_hydra.config.names import names
from llmf_hydra.config.schema import Config
from llmf_hydra.models.architecture import padding_free, rope, shifted_attention, upcast
from llmf_hydra.models.digests import weights_digest
from llmf_hydra.models.network import Network
from llmf_hydra.models.sources import hubs
from llmf_hydra.runs.manifest import digest_of_text
from llmf_hydra.training import pairs, token_logprobs
from llmf_hydra.training.context import RunContext, attention_of
from llmf_hydra.training.layout import rows as layouts
from llmf_hydra.training.layout.rows import Layout

FILES = ("*.safetensors", "*.bin", "*.py", "adapter_config.json")  # of a model's folder
# Their text stands for what it computes.
CODE = (pairs, layouts, token_logprobs, padding_free, rope, shifted_attention, upcast)
IRRELEVANT = {
    "model_name_or_path", "adapter_name_or_path", "adapter_folder", "model_revision", "cache_dir", "hf_hub_token",
    "ms_hub_token", "om_hub_token", "print_param_status", "disable_gradient_checkpointing", "use_reentrant_gc",
    "use_unsloth_gc", "split_special_tokens", "low_cpu_mem_usage", "offload_folder", "block_diag_attn",
    "model_max_length",
}  # fmt: skip
"""Parameters of the model that change no number of its forward pass, or are told by weights and inputs."""


def store_folder(context: RunContext, own: Network | None, layout: Layout, *, at_start: bool) -> Path | None:
    """Where values of a run's reference are kept; None where its weights have no digest.

    `own` is a reference of its own; without one the policy is it, with its starting adapter if `at_start`.
    """
    weights = _weights(context.cfg)
    if weights is None:
        return None
    cfg, network = context.cfg, context.model if own is None else own
    model = {key: value for key, value in asdict(cfg.model).items() if key not in IRRELEVANT}
    depends_on = {
        "stage": cfg.stage.name,
        "weights": weights,
        "role": _role(cfg, own, at_start),
        "network": type(network.get_base_model() if isinstance(network, PeftModel) else network).__name__,
        "config": _config(network),
        "attention": attention_of(network.config),
        "padded": not layout.line,
        "by_row": layout.by_row,
        "weights_dtype": str(context.precision.weights),
        "autocast": context.precision.autocast,
        "pure_bf16": cfg.training.pure_bf16,
        "model": model,
        "quantization": asdict(cfg.quantization),
        "reference_bits": cfg.rlhf.ref_model_quantization_bit,
        "padding": context.pad_id,
        "code": [Path(str(module.__file__)).read_text(encoding="utf8") for module in CODE],
        "libraries": [module.__version__ for module in (torch, transformers, peft, accelerate)],
        "device": _device(),
    }
    name = digest_of_text(json.dumps(depends_on, sort_keys=True, default=str))[:32]
    return paths.cache_dir() / "reference" / name


def _role(cfg: Config, own: Network | None, at_start: bool) -> str:
    """How the reference comes to be of its weights: merged, quantized or copied weights round differently."""
    if own is None:
        return "policy, starting adapter" if at_start else "policy, adapter off"
    named = cfg.rlhf.ref_model or cfg.rlhf.ref_model_adapters or cfg.rlhf.ref_model_quantization_bit
    return "named" if named else f"copy of the start, {cfg.method.name}"


def _weights(cfg: Config) -> list[str] | None:
    """Digests of base and adapters; None where one of them has no files here."""
    rlhf, model = cfg.rlhf, cfg.model
    if model.train_from_scratch or cfg.starts_on_residual:  # made by this run
        return None
    named = model
    if rlhf.ref_model is not None:
        named = replace(model, model_name_or_path=rlhf.ref_model, model_revision="main")
    base = weights_digest(hubs.folder_of(named, weights=True), FILES)
    adapters = [*model.adapters, "|", *names(rlhf.ref_model_adapters)]
    digests = [base, *(name if name == "|" else weights_digest(name, FILES) for name in adapters)]
    found = [digest for digest in digests if digest is not None]
    return [*found, str(cfg.method.create_new_adapter)] if len(found) == len(digests) else None


def _config(network: Network) -> dict[str, object]:
    """The model's config, whatever its folder is called."""
    known = network.config.to_dict()
    return {
        key: value for key, value in known.items() if key not in ("_name_or_path", "transformers_version")
    }


def _device() -> list[str]:
    """The kind of hardware that computes, and not how many threads of it."""
    if torch.cuda.is_available():
        return ["cuda", torch.cuda.get_device_name(), str(torch.version.cuda)]
    return ["cpu", platform.machine(), torch.backends.cpu.get_cpu_capability()]
