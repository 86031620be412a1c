"""Forward passes over rollouts: what a model is given of them, and where it predicts the tokens of their answers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch

from llmf_hydra.models.value_head import positions
from llmf_hydra.training.layout.rows import Layout


@dataclass(frozen=True)
class Spans:
    """The tokens of each row's prompt and answer, known without a look at the device."""

    prompts: tuple[int, ...]
    answers: tuple[int, ...]

    @classmethod
    def of(cls, attention: torch.Tensor, mask: torch.Tensor) -> "Spans":
        """Those of rollouts; see `Rollouts`. The device is waited for."""
        answers = mask.sum(dim=1)
        both = torch.stack([attention.sum(dim=1) - answers, answers]).tolist()
        return cls(tuple(map(int, both[0])), tuple(map(int, both[1])))

    def take(self, rows: Sequence[int]) -> "Spans":
        """Those of some rows."""
        return Spans(tuple(self.prompts[row] for row in rows), tuple(self.answers[row] for row in rows))


@dataclass(frozen=True)
class Pass:
    """A forward pass; n is the number of the answers' tokens, row by row."""

    inputs: dict[str, torch.Tensor]  # of the model
    predicts: torch.Tensor  # (n,): the places before the answers' tokens, in the flattened input
    tokens: torch.Tensor  # (n,): the answers' tokens
    lengths: tuple[int, ...] = ()  # of rows end to end


def forward_pass(
    ids: torch.Tensor, attention: torch.Tensor, spans: Spans, width: int, layout: Layout
) -> Pass:
    """The pass of rollouts `ids` (rows, prompt + answer), of which the last `width` columns are the answers'."""
    start = ids.shape[1] - width  # the column of every answer's first token
    rows = list(zip(spans.prompts, spans.answers, strict=True))
    whole = [(start - prompt, start + answer) for prompt, answer in rows]

    def flat(columns: Iterator[tuple[int, int, int]]) -> torch.Tensor:
        """Places (n,) of columns from a first to a last one of rows that begin at a place; on the ids' device."""
        places = [torch.arange(begin + first, begin + last) for begin, first, last in columns]
        return torch.cat(places).to(ids.device, non_blocking=True)

    begins = range(0, ids.numel(), ids.shape[1])
    tokens = ids.flatten()[flat((b, start, start + row[1]) for b, row in zip(begins, rows, strict=True))]
    if not layout.line:
        inputs = {"input_ids": ids, "attention_mask": attention, "position_ids": positions(attention)}
        before = flat((b, start - 1, start - 1 + row[1]) for b, row in zip(begins, rows, strict=True))
        return Pass(inputs, before, tokens)
    lengths = tuple(sum(row) for row in rows)
    line = ids.flatten()[flat((b, *columns) for b, columns in zip(begins, whole, strict=True))].unsqueeze(0)
    starts = list(accumulate(lengths, initial=0))[:-1]
    inputs = {"input_ids": line, "position_ids": flat((0, 0, length) for length in lengths).unsqueeze(0)}
    if layout.by_row:
        inputs["attention_mask"] = torch.ones_like(line)
    before = flat((b, row[0] - 1, sum(row) - 1) for b, row in zip(starts, rows, strict=True))
    return Pass(inputs, before, tokens, lengths)
