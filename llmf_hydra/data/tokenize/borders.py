"""Which token begins at a character of a text: by what each token is wide, or by the offsets that Rust keeps.

Offsets cost a sixth of all tokenizing. A byte-level tokenizer that leaves the text as it is doesn't need them:
each character of a token is a byte there, so that the ids alone say where each token lies.
"""

import json
from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import accumulate

from tokenizers import Encoding, Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import PreTokenizer

Border = Callable[[int], int | None]
"""The token that begins at a character; None where a token lies across."""


def byte_widths(backend: Tokenizer) -> list[int] | None:
    """Bytes that each id stands for, or None for a tokenizer of another kind than byte-level."""
    if backend.normalizer or not isinstance(backend.model, BPE) or not _is_byte_level(backend.pre_tokenizer):
        return None
    vocabulary = backend.get_vocab(with_added_tokens=True)
    widths = [0] * (max(vocabulary.values(), default=-1) + 1)
    for token, number in vocabulary.items():
        widths[number] = len(token)
    for number, token in backend.get_added_tokens_decoder().items():
        widths[number] = len(token.content.encode())
    return widths


def _is_byte_level(pre_tokenizer: PreTokenizer | None) -> bool:
    """A `ByteLevel` step that adds no space; the others may only cut."""
    if pre_tokenizer is None:
        return False
    step = json.loads(pre_tokenizer.__getstate__())  # the one way that Python has to see into a sequence
    steps = step["pretokenizers"] if step["type"] == "Sequence" else [step]
    cuts = {"Split", "Digits", "Punctuation"}
    return [s["type"] for s in steps if s["type"] not in cuts] == ["ByteLevel"] and not any(
        s.get("add_prefix_space") or s.get("behavior") == "Removed" for s in steps
    )


def by_width(widths: Sequence[int], ids: Sequence[int], text: str) -> Border | None:
    """Borders from the ids alone.

    None where they aren't the whole text: a special token has taken the spaces beside it.
    """
    starts = list(accumulate(map(widths.__getitem__, ids), initial=0))
    one_byte_each = text.isascii()
    if starts[-1] != (len(text) if one_byte_each else len(text.encode())):
        return None

    def border(at: int) -> int | None:
        byte = at if one_byte_each else len(text[:at].encode())
        token = bisect_left(starts, byte)
        return token if token < len(starts) and starts[token] == byte else None

    return border


def by_offsets(encoding: Encoding, text: str) -> Border:
    """Borders from the offsets of an encoding."""

    def border(at: int) -> int | None:
        if at >= len(text):
            return len(encoding.ids)
        token = encoding.char_to_token(at)
        if token is None:
            return None
        chars = encoding.token_to_chars(token)
        return token if chars is not None and chars[0] == at else None

    return border
