"""Where the weights go when they are loaded, and whether they are mapped from their file."""

from typing import Any

from llmf_hydra.config.groups.model import ModelConfig


def placement(model: ModelConfig) -> dict[str, Any]:
    """What `from_pretrained` takes for it.

    By default weights of the file's type are its pages, which all processes share; `low_cpu_mem_usage=false` reads
    whole files into memory, which file systems want that are slow or wrong at mapping.
    """
    options: dict[str, Any] = {} if model.low_cpu_mem_usage else {"disable_mmap": True}
    if model.device_map is not None:
        options |= {"device_map": model.device_map, "offload_folder": model.offload_folder}
    return options
