"""Where a model's files lie: a folder, a hub's name, or one of the built-in models made ready in the cache."""

from pathlib import Path

from llmf_hydra.config.groups.model import EMBEDDED, TINY, ModelConfig


def locate(model: ModelConfig) -> str:
    """The folder or hub name that Transformers loads. Builds a built-in model on its first use."""
    name = str(model.model_name_or_path)
    if name == TINY:
        from llmf_hydra.models.builtin import tiny

        return str(tiny.ready())
    if name == EMBEDDED:
        from llmf_hydra.models.builtin import smollm2 as embedded

        return str(embedded.ready())
    return str(Path(name).expanduser()) if name.startswith("~") else name
