"""Where the weights go when they are loaded, and whether they are mapped from their file."""

from typing import Any

from torch import nn

from llmf_hydra.config.groups.model import ModelConfig
from llmf_hydra.errors import Problem, Refused, did_you_mean


def placement(model: ModelConfig) -> dict[str, Any]:
    """What `from_pretrained` takes for it.

    By default weights of the file's type are its pages, which all processes share; `low_cpu_mem_usage=false` reads
    whole files into memory, which file systems want that are slow or wrong at mapping.
    """
    options: dict[str, Any] = {} if model.low_cpu_mem_usage else {"disable_mmap": True}
    if model.device_map is not None:
        options |= {"device_map": model.device_map, "offload_folder": model.offload_folder}
    return options


def check_names(network: nn.Module, asked: object) -> None:
    """Raise Refused for names in a device map that the network, which may have no weights yet, doesn't have."""
    if not isinstance(asked, dict):
        return
    known = [name for name, _ in (*network.named_modules(), *network.named_parameters())]
    unknown = [str(name) for name in asked if name not in known]
    if unknown:
        remedy = (
            did_you_mean(unknown[0], known) or "name modules such as model.embed_tokens or model.layers.0"
        )
        raise Refused([Problem("model.device_map", asked, f"the model has no module {unknown[0]}", remedy)])
    bare = [
        name for name, _ in network.named_parameters()
        if not any(not place or f"{name}.".startswith(f"{place}.") for place in asked)
    ]  # fmt: skip
    if bare:
        what = f"has no place for {bare[0]}"
        raise Refused([Problem("model.device_map", asked, what, "map each part of the model, or '' alone")])


def check_in_memory(network: nn.Module, asked: object) -> None:
    """Raise Refused for a network to be trained of which Accelerate has put a part on disk."""
    away = next((name for name, weight in network.named_parameters() if weight.is_meta), None)
    if asked is not None and away is not None:
        what = f"puts weights on disk ({away}), through which nothing can be trained: the devices hold too little"
        raise Refused([Problem("model.device_map", asked, what, "choose a smaller model, or quantize it")])
