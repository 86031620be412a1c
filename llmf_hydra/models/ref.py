"""Where a model's files lie: a folder, a hub's name, or one of the built-in models and GGUF files made ready in the
cache."""

from pathlib import Path

from llmf_hydra.config.groups.model import EMBEDDED, TINY, ModelConfig

GGUF = ".gguf"


def locate(model: ModelConfig) -> str:
    """The folder or hub name to load. Builds a built-in model, or converts a GGUF file, on its first use."""
    name = str(model.model_name_or_path)
    if name == TINY:
        from llmf_hydra.models.builtin import tiny

        return str(tiny.ready())
    if name == EMBEDDED:
        from llmf_hydra.models.builtin import smollm2 as embedded

        return str(embedded.ready())
    if is_gguf(name):
        from llmf_hydra.models.sources import gguf

        return str(gguf.ready(Path(name).expanduser()))
    return str(Path(name).expanduser()) if name.startswith("~") else name


def is_gguf(name: str) -> bool:
    """Whether a name is meant as a GGUF file."""
    return name.lower().endswith(GGUF)


def is_on_hub(name: str) -> bool:
    """Whether a name is meant as one of a hub: neither built in nor a file or folder."""
    return not name.startswith(("builtin:", ".", "/", "~")) and not is_gguf(name) and not Path(name).is_dir()
