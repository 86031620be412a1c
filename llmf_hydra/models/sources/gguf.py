"""A model in a GGUF file: turned back into float32, once, and read from the cache afterwards."""

from pathlib import Path
from typing import Any

from llmf_hydra.errors import Problem, Refused
from llmf_hydra.models.builtin.store import built_once
from llmf_hydra.optional import require
from llmf_hydra.runs.file_digests import remembered

KEY = "model.model_name_or_path"
SPECIAL = {"bos_token": "bos", "eos_token": "eos", "pad_token": "padding", "unk_token": "unknown"}


def ready(file: Path) -> Path:
    """The folder of the converted model. Raises Refused for a file that holds no model Transformers can read."""
    return built_once(f"models/{converted_name(file)}", lambda draft: _convert(file, draft))


def converted_name(file: Path) -> str:
    """How the folder of a file's converted model is called; it changes with the file's content."""
    return f"gguf-v1-{remembered(file)[:16]}"


def special_tokens(file: Path) -> dict[str, str]:
    """The special tokens that the file names; Transformers takes others from it (eos for bos, and no padding)."""
    fields: Any = require("gguf", extra="gguf", key=KEY).GGUFReader(file).fields
    if "tokenizer.ggml.tokens" not in fields:
        return {}
    tokens = fields["tokenizer.ggml.tokens"].contents()
    return {
        name: tokens[fields[f"tokenizer.ggml.{key}_token_id"].contents()]
        for name, key in SPECIAL.items()
        if f"tokenizer.ggml.{key}_token_id" in fields
    }


def _convert(file: Path, draft: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    print(f"converting {file.name} to float32, once: its weights take 4 bytes each in the cache", flush=True)
    where = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    try:
        tokenizer = AutoTokenizer.from_pretrained(**where)
        tokenizer.add_special_tokens(special_tokens(file))
        loaded = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    except Exception as error:  # its readers raise anything from KeyError to struct.error
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        what = f"cannot be read as a model: {reason}"
        raise Refused([Problem(KEY, file, what, "name the model's own folder or hub name")]) from error
    config = loaded.config
    if hasattr(config, "quantization_config"):  # the weights are plain now, and one so marked isn't saved
        delattr(config, "quantization_config")
    model = AutoModelForCausalLM.from_config(config)
    model.load_state_dict(loaded.state_dict())
    for settings in (model.config, model.generation_config):
        settings.bos_token_id = tokenizer.bos_token_id
        settings.eos_token_id = tokenizer.eos_token_id
        settings.pad_token_id = tokenizer.pad_token_id
    tokenizer.save_pretrained(draft)
    model.save_pretrained(draft)
