"""A model's config.json, read without torch and without the network."""

import json
from pathlib import Path
from typing import Any

from llmf_hydra.config.groups.model import EMBEDDED, TINY, ModelConfig
from llmf_hydra.models.builtin import smollm2, tiny
from llmf_hydra.paths import cache_dir


def read_config(model: ModelConfig) -> dict[str, Any] | None:
    """The config of the text model; None where it isn't on this machine, or can't be read."""
    name = model.model_name_or_path
    if name is None:
        return None
    if name == TINY:
        return {"model_type": "llama", **tiny.SHAPE}
    file = _file(name, model)
    try:
        known = json.loads(file.read_text(encoding="utf8")) if file is not None else None
    except (OSError, ValueError):
        return None
    if not isinstance(known, dict):
        return None
    text = known.get("text_config")
    return text if isinstance(text, dict) else known


def _file(name: str, model: ModelConfig) -> Path | None:
    folder = cache_dir() / smollm2.NAME if name == EMBEDDED else Path(name).expanduser()
    if folder.is_dir():
        return folder / "config.json"
    if name.startswith(("builtin:", ".", "/", "~")):
        return None
    from huggingface_hub import try_to_load_from_cache

    try:
        found = try_to_load_from_cache(name, "config.json", model.cache_dir, model.model_revision)
    except ValueError:  # no name that a hub could have
        return None
    return Path(found) if isinstance(found, str) else None
