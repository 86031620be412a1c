"""From tokens to text as they come: characters only once they are whole, and nothing of what ends an answer."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from transformers import PreTrainedTokenizerBase

from llmf_hydra.serve.engine import Decoding, Finish
from llmf_hydra.training.generation import StopTexts

HALF = "\ufffd"  # what bytes decode to that are no whole character yet
CONTEXT = 8  # tokens before the new ones that are decoded with them: spaces depend on what stands before


@dataclass(frozen=True)
class Ends:
    """What ends every answer of a model."""

    ids: frozenset[int]
    texts: StopTexts | None  # texts of several tokens


@dataclass
class Text:
    """The text of one answer as it grows."""

    tokenizer: PreTrainedTokenizerBase
    decoding: Decoding
    ends: Ends
    ids: list[int] = field(default_factory=list)
    text: str = ""  # all that is decoded, the stop text apart
    _given: int = 0  # characters of it that were handed out
    _decoded: int = 0  # tokens that `text` holds

    def add(self, token: int, limit: int) -> tuple[str, Finish | None]:
        """Take a token in; returns the text that is certain now, and why the answer ends with it, if it does."""
        self.ids.append(token)
        if token in self.ends.ids:
            self._decode(last=True, upto=len(self.ids) - 1)
            return self._rest(), Finish.STOP
        full = len(self.ids) >= limit
        self._decode(last=full, upto=len(self.ids))
        if self._cut_at_stop():
            return self._rest(), Finish.STOP
        if full:
            return self._rest(), Finish.LENGTH
        certain = len(self.text) - self._beginning_of_stop()
        piece, self._given = self.text[self._given : certain], max(self._given, certain)
        return piece, None

    def _rest(self) -> str:
        piece, self._given = self.text[self._given :], len(self.text)
        return piece

    def _decode(self, *, last: bool, upto: int) -> None:
        start = max(0, self._decoded - CONTEXT)
        before = self._plain(self.ids[start : self._decoded])
        whole = self._plain(self.ids[start:upto])
        if last or not whole.endswith(HALF):
            self.text += whole[len(before) :]
            self._decoded = upto

    def _plain(self, ids: Sequence[int]) -> str:
        skip = self.decoding.skip_special_tokens
        return str(
            self.tokenizer.decode(list(ids), skip_special_tokens=skip, clean_up_tokenization_spaces=False)
        )

    @property
    def _stops(self) -> tuple[str, ...]:
        return self.decoding.stop + (self.ends.texts.texts if self.ends.texts else ())

    def _cut_at_stop(self) -> bool:
        """Cut the text where the first stop text begins; whether there is one."""
        found = [
            at for stop in self._stops if (at := self.text.find(stop, max(0, self._given - len(stop)))) >= 0
        ]
        if found:
            self.text = self.text[: min(found)]
            return True
        texts = self.ends.texts  # may hold special tokens, which the text doesn't show
        return texts is not None and texts.found(self.ids[-texts.window :])

    def _beginning_of_stop(self) -> int:
        """Characters at the end that may become a stop text."""
        longest = 0
        for stop in self._stops:
            for length in range(min(len(stop) - 1, len(self.text)), longest, -1):
                if self.text.endswith(stop[:length]):
                    longest = length
                    break
        return longest
