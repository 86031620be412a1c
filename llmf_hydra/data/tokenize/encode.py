"""From text to token ids, and from spans of characters to spans of tokens, without a token across a border.

The whole text is tokenized at once, by Rust, in threads. Where a token would hold characters of both prompt
and answer, the text is tokenized again in pieces, which is also what the model sees when it generates.
"""

import functools
import itertools
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

from tokenizers import Encoding, Tokenizer, processors

from llmf_hydra.data.chat.render import Span
from llmf_hydra.data.tokenize.borders import Border, by_offsets, by_width, byte_widths

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PLAIN = "\ufdd3"  # stands inside a special token that is plain text; never seen by the tokenizer


@dataclass(slots=True)
class Encoded:
    """Token ids of one text, and the spans of tokens that belong to its answers."""

    ids: list[int]
    answers: list[Span]


class Encoder(Protocol):
    """What both kinds of tokenizer offer."""

    def batch(self, texts: Sequence[str]) -> list[Any]:
        """Something for each text that `spans` needs."""
        ...

    def spans(self, encoding: Any, text: str, spans: Sequence[Span]) -> Encoded:
        """Ids of the text and the tokens of each span. Spans are in order and do not overlap."""
        ...

    def state(self) -> str:
        """All that decides how text becomes ids, as text."""
        ...


class FastEncoder:
    """Tokenizes with a private copy of the Rust tokenizer: no truncation, no padding, untrimmed offsets."""

    def __init__(self, backend: Tokenizer):
        self.backend = Tokenizer.from_str(backend.to_str())
        self.backend.no_truncation()
        self.backend.no_padding()
        # Trimmed offsets would hide that a token holds the prompt's last space.
        self.backend.post_processor = processors.ByteLevel(trim_offsets=False)
        self.prepends = not self._tokens("x").startswith("x")

    def batch(self, texts: Sequence[str]) -> list[Encoding]:
        """Encodings of many texts; releases the interpreter and uses the tokenizer's own threads."""
        encode = self.backend.encode_batch if self.widths is None else self.backend.encode_batch_fast
        return encode([text.replace(PLAIN, "") for text in texts], add_special_tokens=False)

    def spans(self, encoding: Encoding, text: str, spans: Sequence[Span]) -> Encoded:
        """Ids of the text and the tokens of each span.

        Where a border lies within a token, see `_in_pieces`.
        """
        if PLAIN in text:
            return joined([self._with_plain(piece) for piece in pieces(text, spans)])
        ids = encoding.ids
        border = self._border(encoding, ids, text)
        found: list[Span] = []
        for start, end in spans:
            first, last = border(start), border(end)
            if first is None or last is None:
                return self._in_pieces(encoding, text, spans)
            found.append((first, last))
        return Encoded(ids, found)

    def _border(self, encoding: Encoding, ids: list[int], text: str) -> Border:
        if self.widths is None:
            return by_offsets(encoding, text)
        found = by_width(self.widths, ids, text)
        return found or by_offsets(self.backend.encode(text, add_special_tokens=False), text)

    def state(self) -> str:
        """The Rust tokenizer as JSON; how batches are cut and padded is left out."""
        return self.backend.to_str()

    def _in_pieces(self, encoding: Encoding, text: str, spans: Sequence[Span]) -> Encoded:
        """Tokenize the text cut at the borders.

        A tokenizer that puts a space before each piece would change the text: there, tokens across stay
        untrained.
        """
        if self.prepends:
            return Encoded(encoding.ids, [_inner(encoding, span) for span in spans])
        return joined([e.ids for e in self.batch(pieces(text, spans))])

    def _with_plain(self, text: str) -> list[int]:
        """Ids of a text in which marked special tokens are plain text and the others are special."""
        ids: list[int] = []
        for part in split_at(text, self._special):
            number = self._special.get(part)
            ids += [number] if number is not None else self._plain_ids(part)
        return ids

    @functools.cached_property
    def widths(self) -> list[int] | None:
        """Bytes of each id, where ids alone tell the borders; made when the first text is tokenized."""
        return byte_widths(self.backend)

    @functools.cached_property
    def _special(self) -> dict[str, int]:
        added = self.backend.get_added_tokens_decoder()
        return {token.content: number for number, token in added.items() if token.special}

    @functools.cached_property
    def _literal(self) -> Tokenizer:
        """A copy that knows no special tokens. One of its own: the other may be at work in another thread."""
        copy = Tokenizer.from_str(self.backend.to_str())
        copy.encode_special_tokens = True
        return copy

    def _plain_ids(self, text: str) -> list[int]:
        return self._literal.encode(text.replace(PLAIN, ""), add_special_tokens=False).ids

    def _tokens(self, text: str) -> str:
        return "".join(self.backend.encode(text, add_special_tokens=False).tokens)


def _inner(encoding: Encoding, span: Span) -> Span:
    """The tokens that lie wholly within a span of characters."""
    inside = [i for i, (a, b) in enumerate(encoding.offsets) if span[0] <= a and b <= span[1] and a < b]
    return (inside[0], inside[-1] + 1) if inside else (0, 0)


def pieces(text: str, spans: Iterable[Span]) -> list[str]:
    """The text cut at the borders of spans: between, span, between, span, ..., rest.

    Joined they are the text.
    """
    borders = [0, *itertools.chain.from_iterable(spans), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(borders)]


def joined(ids: Sequence[list[int]]) -> Encoded:
    """The ids of `pieces` as one; each second piece is an answer."""
    ends = list(itertools.accumulate(map(len, ids)))
    answers = [(ends[i - 1], ends[i]) for i in range(1, len(ids), 2)]
    return Encoded(list(itertools.chain.from_iterable(ids)), answers)


def as_plain(text: str, special: Iterable[str]) -> str:
    """The text with its special tokens marked, so that they are tokenized as plain text."""
    for token in special:
        if token in text:
            text = text.replace(token, f"{token[0]}{PLAIN}{token[1:]}")
    return text


def split_at(text: str, tokens: Iterable[str]) -> list[str]:
    """The text cut before and after each of the tokens, which stay; longer ones are found first."""
    border = "|".join(re.escape(token) for token in sorted(tokens, key=len, reverse=True))
    return [part for part in re.split(f"({border})", text) if part] if border else [text]


class SlowEncoder:
    """For tokenizers without a Rust side: each piece apart, since there are no offsets."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase"):
        self.tokenizer = tokenizer

    def batch(self, texts: Sequence[str]) -> list[None]:
        """Nothing to do yet: the pieces are known only with the spans."""
        return [None] * len(texts)

    def spans(self, encoding: Any, text: str, spans: Sequence[Span]) -> Encoded:
        """Ids of the text and the tokens of each span."""
        return joined([self._ids(piece) if piece else [] for piece in pieces(text, spans)])

    def state(self) -> str:
        """Vocabulary and arguments."""
        return json.dumps(
            [self.tokenizer.get_vocab(), self.tokenizer.init_kwargs], sort_keys=True, default=str
        )

    def _ids(self, text: str) -> list[int]:
        if PLAIN not in text:
            return self.tokenizer(text, add_special_tokens=False)["input_ids"]
        known = self.tokenizer.all_special_tokens
        return [number for part in split_at(text, known) for number in self._part(part, part in known)]

    def _part(self, text: str, special: bool) -> list[int]:
        if special:
            return [cast("int", self.tokenizer.convert_tokens_to_ids(text))]
        plain = text.replace(PLAIN, "")
        return self.tokenizer(plain, add_special_tokens=False, split_special_tokens=True)["input_ids"]


def make_encoder(tokenizer: "PreTrainedTokenizerBase") -> Encoder:
    """The encoder for a tokenizer of Transformers."""
    return (
        FastEncoder(cast("Tokenizer", tokenizer.backend_tokenizer))
        if tokenizer.is_fast
        else SlowEncoder(tokenizer)
    )
