"""Digests: what a tokenized dataset depends on, as one name."""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

VERSION = 3  # of the encoder: raise it when the same input gives other tokens
_BLOCK = 1 << 20
_SAMPLES, _SAMPLE = 64, 1 << 16  # blocks, and bytes of each


def of(value: object) -> str:
    """Digest of anything that JSON can write."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def of_file(path: Path) -> str:
    """Digest of a file's content."""
    made = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            made.update(block)
    return made.hexdigest()


def of_samples(path: Path) -> str:
    """Digest of a file's size and of blocks spread over it, at most 4 MiB: fast whatever the size."""
    size = path.stat().st_size
    made = hashlib.blake2b(str(size).encode(), digest_size=16)
    with path.open("rb") as file:
        for number in range(_SAMPLES):
            file.seek(max(size - _SAMPLE, 0) * number // (_SAMPLES - 1))
            made.update(file.read(_SAMPLE))
    return made.hexdigest()


def of_tokenizer(tokenizer: "PreTrainedTokenizerBase", state: str) -> str:
    """Digest of all that decides how text becomes ids; `state` is what the encoder says of itself."""
    return of(
        [type(tokenizer).__name__, tokenizer.special_tokens_map, bool(tokenizer.split_special_tokens), state]
    )
