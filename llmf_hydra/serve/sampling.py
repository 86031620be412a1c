"""Which token comes next: greedy or sampled, each row of a batch with its own settings.

The filters are those of Transformers' `generate`, in its order: repetition penalty, temperature, top-k, top-p.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from llmf_hydra.serve.constraint import Constraint
from llmf_hydra.serve.engine import Decoding, Request, Token

COLDEST = 1e-6  # a lower temperature chooses the same, and float32 would round it to 0


@dataclass(frozen=True)
class Chooser:
    """How one row chooses its tokens."""

    decoding: Decoding
    random: torch.Generator | None  # None: greedily
    constraint: Constraint | None = None
    prompt: int = 0  # tokens before the answer

    @classmethod
    def of(cls, request: Request) -> "Chooser":
        """With random numbers of its own, where it samples."""
        decoding, given = request.decoding, (request.constraint, len(request.prompt))
        if not decoding.do_sample:
            return cls(decoding, None, *given)
        random = torch.Generator()
        if decoding.seed is None:
            random.seed()
        else:
            random.manual_seed(decoding.seed)
        return cls(decoding, random, *given)


def choose(logits: torch.Tensor, choosers: Sequence[Chooser], seen: Sequence[Sequence[int]]) -> list[Token]:
    """A token for each row of `logits` (rows, vocabulary); `seen` holds the tokens of prompt and answer so far."""
    scores = logits.float()
    asked = [chooser.decoding.logprobs for chooser in choosers]
    plain = scores.log_softmax(-1) if any(count is not None for count in asked) else None
    ids = _chosen(scores, choosers, seen)
    if plain is None:
        return [Token(token) for token in ids]
    return [Token(token) if count is None else _reported(plain[row], token, count)
            for row, (token, count) in enumerate(zip(ids, asked, strict=True))]  # fmt: skip


def _chosen(scores: torch.Tensor, choosers: Sequence[Chooser], seen: Sequence[Sequence[int]]) -> list[int]:
    penalized = [row for row, chooser in enumerate(choosers) if chooser.decoding.repetition_penalty != 1]
    constrained = [(row, chooser.constraint) for row, chooser in enumerate(choosers) if chooser.constraint]
    if penalized or constrained:
        scores = scores.clone()
    for row in penalized:
        scores[row] = penalize(scores[row], seen[row], choosers[row].decoding.repetition_penalty)
    for row, constraint in constrained:
        ids = torch.tensor(constraint.allowed(seen[row][choosers[row].prompt :]), device=scores.device)
        scores[row] = torch.full_like(scores[row], -torch.inf).index_copy(0, ids, scores[row][ids])
    likeliest: list[int] = scores.argmax(-1).tolist()
    return [
        best if chooser.random is None else sample(scores[row], chooser.decoding, chooser.random)
        for row, (best, chooser) in enumerate(zip(likeliest, choosers, strict=True))
    ]


def penalize(scores: torch.Tensor, seen: Sequence[int], penalty: float) -> torch.Tensor:
    """Scores (vocabulary,) in which tokens seen before are less likely (Keskar et al. 2019, arXiv:1909.05858)."""
    ids = torch.tensor(sorted(set(seen)), device=scores.device)
    old = scores[ids]
    return scores.scatter(0, ids, torch.where(old < 0, old * penalty, old / penalty))


def sample(scores: torch.Tensor, decoding: Decoding, random: torch.Generator) -> int:
    """A token drawn from scores (vocabulary,), after temperature, top-k and top-p."""
    count = min(decoding.top_k or len(scores), len(scores))
    values, ids = scores.topk(count)  # from the likeliest on
    heat = max(decoding.temperature, COLDEST)
    shares = ((values - values[0]).cpu() / heat).softmax(-1)  # without overflow at low temperatures
    if decoding.top_p < 1:
        beyond = shares.cumsum(-1) - shares >= decoding.top_p
        beyond[0] = False
        shares = shares.masked_fill(beyond, 0.0)
    return int(ids[torch.multinomial(shares, 1, generator=random)])


def _reported(plain: torch.Tensor, id: int, count: int) -> Token:
    values, ids = plain.topk(min(count, len(plain)))
    return Token(id, float(plain[id]), tuple(zip(ids.tolist(), values.tolist(), strict=True)))
