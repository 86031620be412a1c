"""Where the weights go when they are loaded, and whether they are mapped from their file."""

from typing import Any

from torch import nn

from llmf_hydra.config.groups.model import ModelConfig
from llmf_hydra.errors import Problem, Refused


def placement(model: ModelConfig) -> dict[str, Any]:
    """What `from_pretrained` takes for it.

    By default weights of the file's type are its pages, which all processes share; `low_cpu_mem_usage=false` reads
    whole files into memory, which file systems want that are slow or wrong at mapping.
    """
    options: dict[str, Any] = {} if model.low_cpu_mem_usage else {"disable_mmap": True}
    if model.device_map is not None:
        options |= {"device_map": model.device_map, "offload_folder": model.offload_folder}
    return options


def check_in_memory(network: nn.Module, asked: object) -> None:
    """Raise Refused for a network to be trained of which Accelerate has put a part on disk."""
    away = next((name for name, weight in network.named_parameters() if weight.is_meta), None)
    if asked is not None and away is not None:
        what = f"puts weights on disk ({away}), through which nothing can be trained: the devices hold too little"
        raise Refused([Problem("model.device_map", asked, what, "choose a smaller model, or quantize it")])
