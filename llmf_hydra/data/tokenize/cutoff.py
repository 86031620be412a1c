"""Shortening of rows that are longer than `data.cutoff_len`.

Of several turns the oldest go first, whole. What is then still too long loses tokens of the last question and of
the answer in proportion; the header of the answer stays. An answer that was cut has no end of turn: it goes on.
"""

from collections.abc import Callable, Sequence
from itertools import accumulate

from llmf_hydra.data.chat.render import Span
from llmf_hydra.data.rows import Message
from llmf_hydra.data.tokenize.encode import Encoded


def exchanges(messages: Sequence[Message]) -> list[int]:
    """Where each exchange begins: the indices of user messages (a system message belongs to none)."""
    return [i for i, message in enumerate(messages) if message["role"] == "user"]


def without_oldest(messages: Sequence[Message], drop: int) -> list[Message]:
    """The messages without the first `drop` exchanges; the system message stays."""
    starts = exchanges(messages)
    return [*messages[: starts[0]], *messages[starts[drop] :]]


def _exchange_of_answers(messages: Sequence[Message]) -> list[int]:
    """For each assistant message the number of its exchange, from 1."""
    users = accumulate(message["role"] == "user" for message in messages)
    return [n for n, message in zip(users, messages, strict=True) if message["role"] == "assistant"]


def newest_that_fit(
    messages: Sequence[Message], encode: Callable[[list[Message]], Encoded], whole: Encoded, limit: int
) -> tuple[list[Message], Encoded]:
    """As many of the newest exchanges as fit, at least one, with their tokens."""
    count = len(exchanges(messages))
    # Dropping n exchanges saves at most the tokens up to the end of the n-th's answers: no need to try fewer.
    ends = zip(_exchange_of_answers(messages), whole.answers, strict=False)
    fewest = next((n for n, (_, end) in ends if len(whole.ids) - end <= limit), count)
    kept, encoded = list(messages), whole
    for drop in range(min(fewest, count - 1), count):
        kept = without_oldest(messages, drop)
        encoded = encode(kept)
        if len(encoded.ids) <= limit:
            break
    return kept, encoded


def shares(prompt: int, answer: int, limit: int, question: Span) -> tuple[int, int]:
    """How many tokens prompt and answer keep: in proportion, but a short one gives nothing away.

    What stands around the question (headers, system message) is kept and not counted, unless it is half of
    all.
    """
    around = prompt - (question[1] - question[0])
    around = around if around * 2 <= limit else 0
    prompt, limit = prompt - around, limit - around
    if answer * 2 < limit:
        kept = answer
    elif prompt * 2 < limit:
        kept = limit - prompt
    else:
        kept = limit * answer // (prompt + answer)
    kept = min(kept, answer)
    return around + min(prompt, limit - kept), kept


def cut(ids: Sequence[int], keep: int, region: Span) -> list[int]:
    """`keep` of the ids: from the end of `region` first, then what lies before it, then what lies after."""
    start, end = region
    excess = len(ids) - keep
    if excess <= 0:
        return list(ids)
    from_region = min(excess, end - start)
    left = [*ids[: end - from_region], *ids[end:]]
    excess -= from_region
    before = min(excess, max(start - 1, 0))  # the first token, often a begin-of-text, stays
    left = [*left[: start - before], *left[start:]]
    return left[-keep:] if keep else []


def cut_answer(ids: Sequence[int], keep: int, stop: int) -> list[int]:
    """The first `keep` of an answer's ids, without the last `stop` that end its turn: a model that saw an end
    after a cut would learn to stop in the middle."""
    return list(ids) if len(ids) <= keep else list(ids[: min(keep, len(ids) - stop)])
