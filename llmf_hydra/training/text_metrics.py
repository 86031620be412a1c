"""How near a generated text is to a reference, in percent: BLEU-4, ROUGE and exact matches, of one pair of texts.

Words are runs of letters and digits in lower case; a character of a script without spaces is a word of its own.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence

# Han, Hiragana, Katakana; then words; then other signs one by one
_WORD = re.compile("[\u3040-\u30ff\u3400-\u9fff]|[^\\W_\u3040-\u30ff\u3400-\u9fff]+|[^\\w\\s]")


def scores(text: str, reference: str) -> dict[str, float]:
    """All metrics of a text against a reference."""
    said, wanted = words(text), words(reference)
    return {
        "bleu-4": bleu(said, wanted),
        "rouge-1": rouge_n(said, wanted, 1),
        "rouge-2": rouge_n(said, wanted, 2),
        "rouge-l": rouge_l(said, wanted),
        "exact_match": 100.0 * (text.strip() == reference.strip()),
    }


def words(text: str) -> list[str]:
    """The words and signs of a text."""
    return _WORD.findall(text.lower())


def bleu(said: Sequence[str], wanted: Sequence[str]) -> float:
    """BLEU-4 of one text (Papineni et al. 2002): the geometric mean of the precisions of 1- to 4-grams, times
    the brevity penalty `min(1, e^(1 - |wanted| / |said|))`.

    One is added to matches and counts of n > 1 (Lin and Och 2004): a short text need not have a 4-gram.
    """
    if not said or not wanted:
        return 0.0
    logs = []
    for n in range(1, 5):
        matches, total = _matches(said, wanted, n), max(len(said) - n + 1, 0)
        smooth = n > 1
        if matches + smooth == 0:
            return 0.0
        logs.append(math.log((matches + smooth) / (total + smooth)))
    brevity = min(0.0, 1 - len(wanted) / len(said))
    return 100 * math.exp(brevity + sum(logs) / 4)


def rouge_n(said: Sequence[str], wanted: Sequence[str], n: int) -> float:
    """ROUGE-N (Lin 2004): the F1 of the n-grams that both have."""
    return _f1(_matches(said, wanted, n), max(len(said) - n + 1, 0), max(len(wanted) - n + 1, 0))


def rouge_l(said: Sequence[str], wanted: Sequence[str]) -> float:
    """ROUGE-L (Lin 2004): the F1 of the longest common subsequence."""
    row = [0] * (len(wanted) + 1)
    for word in said:
        diagonal = 0
        for at, other in enumerate(wanted, 1):
            diagonal, row[at] = row[at], diagonal + 1 if word == other else max(row[at], row[at - 1])
    return _f1(row[-1], len(said), len(wanted))


def _matches(said: Sequence[str], wanted: Sequence[str], n: int) -> int:
    """n-grams that both have; one that is repeated counts as often as both have it."""
    return (_grams(said, n) & _grams(wanted, n)).total()


def _grams(of: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(of[at : at + n]) for at in range(len(of) - n + 1))


def _f1(matches: int, said: int, wanted: int) -> float:
    return 200 * matches / (said + wanted) if said and wanted else 0.0
