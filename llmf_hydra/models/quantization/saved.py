"""Models that were saved quantized, told by their config.json. Without torch."""

import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llmf_hydra.config.choices import INFERENCE_JOBS, METHODS
from llmf_hydra.config.schema import Config
from llmf_hydra.errors import NO_VALUE, Problem
from llmf_hydra.models.adapter_files import read

KEY = "model.model_name_or_path"
# quant_method of a config.json -> packages that load it, and the command that installs them
LOADERS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "gptq": (("gptqmodel", "optimum"), "pip install 'llmf_hydra[gptq]' in an environment of its own"),
    "awq": (("gptqmodel",), "pip install 'llmf_hydra[gptq]' in an environment of its own"),
    "bitsandbytes": (("bitsandbytes",), "pip install 'llmf_hydra[bnb]'"),
    "eetq": (("kernels",), "pip install 'llmf_hydra[eetq]'"),
    "compressed-tensors": (("compressed_tensors",), "pip install compressed-tensors"),
    "torchao": (("torchao",), "pip install torchao"),
    "mxfp4": ((), ""),  # without their kernels Transformers turns these two back into bfloat16
    "fp8": ((), ""),
}


def quantized_by(config: Mapping[str, Any]) -> str | None:
    """How the weights of a `config.json` were quantized when they were saved; None where they were not."""
    known = config.get("quantization_config")
    if not isinstance(known, Mapping):
        return None
    name = known.get("quant_method") or ("bitsandbytes" if "load_in_4bit" in known else "unknown")
    return str(name).removesuffix("_4bit").removesuffix("_8bit")


def problems(cfg: Config, folder: Path) -> Iterator[Problem]:
    """Why the run can't use a quantized model of a folder; nothing for weights in full precision."""
    config = read(folder / "config.json")
    method = quantized_by(config) if config is not None else None
    if method is None:
        return
    named = cfg.model.model_name_or_path
    if cfg.quantization.quantization_bit is not None:
        what = f"the model {named} is quantized already, with {method}"
        yield Problem(
            "quantization.quantization_bit", cfg.quantization.quantization_bit, what, "set quantization=none"
        )
    if method not in LOADERS:
        remedy = "name the model that it was made from"
        yield Problem(KEY, named, f"is quantized with {method}, which is not supported here", remedy)
        return
    packages, remedy = LOADERS[method]
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        what = f"is quantized with {method} and needs the package {' and '.join(missing)}"
        yield Problem(KEY, named, what, remedy)
    if cfg.job.name not in INFERENCE_JOBS and not METHODS[cfg.method.name].adapters:
        what = f"the weights of {named} are quantized with {method}, and quantized weights are not trained"
        yield Problem(f"method={cfg.method.name}", NO_VALUE, what, "choose method=lora")
