"""Answers that a reader would turn down: dodging, rude, rambling, off-topic or contradictory."""

from __future__ import annotations

from collections import Counter
from random import Random

from .items import Item, load_bank

STYLES = ("dodge", "dismissive", "hedge", "offtopic", "contradict")
MAX_WORDS = 40
TRIES = 7


class Spoiler:
    """Composes spoilt answers from the parts in `bad_answers.json`, preferring wordings not used so far."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.parts: dict[str, dict[str, list[str]]] = load_bank("bad_answers")
        self.used: Counter[str] = Counter()

    def spoil(self, item: Item, style: str, length: int) -> str:
        """A bad answer to `item` in one of `STYLES`, of about `length` words."""
        if style == "contradict" and not can_contradict(item):
            style = "hedge"
        target = length * self.rng.uniform(0.5, 1.2)
        tries = [self._compose(item, style) for _ in range(TRIES)]
        text, core = min(tries, key=lambda pair: self._cost(*pair, target))
        self.used[core] += 1
        self.used[text] += text != core
        return text

    def _cost(self, text: str, core: str, target: float) -> float:
        """How far `text` is from the wanted length, with a charge for words used before."""
        return abs(len(text.split()) - target) + self.used[core] + 5 * self.used[text]

    def _compose(self, item: Item, style: str) -> tuple[str, str]:
        """One answer put together at random, and the core sentence it was built on."""
        parts = self.parts[style]
        core = self.rng.choice(parts["core"])
        pieces = [core]
        if "open" in parts and self.rng.random() < 0.5:
            pieces.insert(0, self.rng.choice(parts["open"]))
        if "tail" in parts and self.rng.random() < 0.5:
            pieces.append(self.rng.choice(parts["tail"]))
        return " ".join(pieces).format(about=item.about, good=item.good, wrong=item.wrong), core


def can_contradict(item: Item) -> bool:
    """Whether the good and the wrong answer, one after the other, read as a short contradiction."""
    sentences = all(text.endswith((".", "?", "!")) and "\n" not in text for text in (item.good, item.wrong))
    return sentences and len(item.good.split()) + len(item.wrong.split()) <= MAX_WORDS - 8
