"""The files of an exported model: weights in shards, the base's own tokenizer, and what describes them."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from llmf_hydra.errors import Problem, Refused
from llmf_hydra.runs import disk
from llmf_hydra.runs.checkpoints import follow_umask

RECORD = "export.json"  # what an export says of itself, and how it is known as one
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
                   "vocab.json", "merges.txt", "vocab.txt", "tokenizer.model", "*.tiktoken", "chat_template.jinja",
                   "chat_template.json", "preprocessor_config.json", "processor_config.json",
                   "video_preprocessor_config.json")  # fmt: skip
TEMPLATE, TOKENIZER_CONFIG = "chat_template.jinja", "tokenizer_config.json"
INDEX, LEGACY_INDEX = "model.safetensors.index.json", "pytorch_model.bin.index.json"
KEY = "export.export_dir"


@contextmanager
def new_folder(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """A folder to write in that becomes `out` at the end, whole or not at all; with `overwrite` in an older's place.

    Raises Refused where the folder can't be made, or holds files by then.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise Refused([Problem(KEY, out, f"cannot be written: {error.strerror}")]) from error
    older = out.with_name(f"{draft.name}.older")
    try:
        yield draft
        follow_umask(draft)
        umask = os.umask(0)
        os.umask(umask)
        draft.chmod(0o777 & ~umask)
        disk.flush(draft)
        if out.exists() and any(out.iterdir()):
            if not overwrite:  # another has written it meanwhile
                raise Refused([Problem(KEY, out, "holds files already", "name a new folder")])
            out.rename(older)
        draft.rename(out)  # over an empty folder too
        disk.flush_entry(out.parent)
        shutil.rmtree(older, ignore_errors=True)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def write_weights(model: PreTrainedModel, folder: Path, shard_size: str, *, legacy: bool) -> None:
    """The weights and the config, in files of at most `shard_size`, such as 5GB: safetensors, or with `legacy` .bin."""
    model.save_pretrained(folder, max_shard_size=shard_size)
    if legacy:
        _to_legacy(folder)


def _to_legacy(folder: Path) -> None:
    """Each file of safetensors as one that torch.load reads, of the same weights."""
    index = folder / INDEX
    for file in sorted(folder.glob("*.safetensors")):
        torch.save(load_file(file), folder / _legacy_name(file.name))
        file.unlink()
    if index.exists():
        known = json.loads(index.read_text(encoding="utf8"))
        known["weight_map"] = {name: _legacy_name(file) for name, file in known["weight_map"].items()}
        (folder / LEGACY_INDEX).write_text(json.dumps(known, indent=2) + "\n", encoding="utf8")
        index.unlink()


def _legacy_name(file: str) -> str:
    return f"pytorch_{file.removesuffix('.safetensors')}.bin"


def write_tokenizer(
    tokenizer: PreTrainedTokenizerBase, base: Path, folder: Path, *, changed: bool, template: str | None
) -> None:
    """The tokenizer's files, byte for byte those of the base unless tokens were added to it (`changed`): converters
    know a tokenizer by them. `template` is a chat template that takes the place of the tokenizer's own."""
    if changed:
        tokenizer.save_pretrained(folder)
    else:
        for pattern in TOKENIZER_FILES:
            for file in base.glob(pattern):
                shutil.copyfile(file, folder / file.name)
    if template is not None:
        _write_template(folder, template)


def _write_template(folder: Path, template: str) -> None:
    """The template where Transformers looks first, and in the older place too, which older readers know."""
    (folder / TEMPLATE).write_text(template, encoding="utf8")
    file = folder / TOKENIZER_CONFIG
    known: dict[str, Any] = json.loads(file.read_text(encoding="utf8"))
    known["chat_template"] = template
    file.write_text(json.dumps(known, indent=2, ensure_ascii=False) + "\n", encoding="utf8")


def write_generation_config(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, ends: list[int]
) -> None:
    """Have the model's generation config end an answer at the template's tokens too; `save_pretrained` writes it."""
    config: GenerationConfig | None = model.generation_config
    if config is None:
        return
    known = config.eos_token_id
    every = [*(known if isinstance(known, list) else [known]), *ends, tokenizer.eos_token_id]
    unique = list(dict.fromkeys(end for end in every if end is not None))
    config.eos_token_id = unique[0] if len(unique) == 1 else unique or None
    if config.pad_token_id is None:
        config.pad_token_id = tokenizer.pad_token_id
    config.use_cache = True
    if not config.do_sample:  # what acts only where answers are sampled would be refused when it is saved
        config.temperature = config.top_p = config.top_k = None
