"""Batches of texts and dialogues, packed or not, as tensors.

Packed and neat, no token may see another row. `form` says how the model learns of it:
- positions: position ids restart with each row, and there is no mask. Right for sdpa and eager: Transformers
  finds the borders in the positions. A mask of ones, or a cache of keys and values, would mix the rows.
- blocks: a 4-D float mask as well, for models that do not look at positions. In eager a boolean one is wrong.
- flat: all rows of the batch in one line, packed or not, without padding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NotRequired, TypedDict, cast

import numpy as np
import torch

from llmf_hydra.config.groups.data import DataConfig
from llmf_hydra.data.tokenize.columns import IGNORED

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FORMS = ("positions", "blocks", "flat")


class TokenRow(TypedDict):
    """A tokenized row; `seq_lengths` are the tokens of each row in a pack."""

    input_ids: list[int]
    labels: list[int]
    seq_lengths: NotRequired[list[int]]


@dataclass(frozen=True)
class Collator:
    """Rows to tensors of shape (batch, longest); `flat`: (1, all tokens)."""

    pad_id: int
    label_of_padding: int = IGNORED
    neat: bool = False
    form: str = "positions"
    multiple_of: int = 1
    dtype: torch.dtype = torch.float32  # of the 4-D mask: that of the model's activations

    def __call__(self, rows: Sequence[TokenRow]) -> dict[str, torch.Tensor]:
        """`input_ids` and `labels`, with `attention_mask`, or `position_ids`, or (blocks) both."""
        ids = [np.asarray(row["input_ids"], np.int64) for row in rows]
        labels = [np.asarray(row["labels"], np.int64) for row in rows]
        if self.form == "flat":
            return self._flat(ids, labels, self.lengths(rows))
        if not (self.neat and "seq_lengths" in rows[0]):
            return self._plain(ids, labels)
        return self._neat(ids, labels, [list(row.get("seq_lengths", ())) for row in rows])

    def lengths(self, rows: Sequence[TokenRow]) -> tuple[int, ...]:
        """The tokens of all rows that see nothing of each other, in their order: a pack that isn't neat is one."""
        return tuple(
            length
            for row in rows
            for length in (
                row.get("seq_lengths", ()) if self.neat and "seq_lengths" in row else [len(row["input_ids"])]
            )
        )

    def _flat(
        self, ids: list[np.ndarray], labels: list[np.ndarray], lengths: Sequence[int]
    ) -> dict[str, torch.Tensor]:
        flat = np.concatenate(labels)
        flat[np.cumsum([0, *map(len, labels[:-1])])] = IGNORED  # the line before doesn't predict it
        made = {
            "input_ids": self._padded([np.concatenate(ids)], self.pad_id),
            "labels": self._padded([flat], IGNORED),
        }
        width = made["input_ids"].shape[1]
        positions = [np.arange(length) for length in (*lengths, width - len(flat))]
        return made | {"position_ids": torch.from_numpy(np.concatenate(positions))[None]}

    def _plain(self, ids: list[np.ndarray], labels: list[np.ndarray]) -> dict[str, torch.Tensor]:
        mask = [np.ones(len(row), np.int64) for row in ids]
        return {
            "input_ids": self._padded(ids, self.pad_id),
            "labels": self._padded(labels, self.label_of_padding),
            "attention_mask": self._padded(mask, 0),
        }

    def _neat(
        self, ids: list[np.ndarray], labels: list[np.ndarray], lengths: list[list[int]]
    ) -> dict[str, torch.Tensor]:
        made = {
            "input_ids": self._padded(ids, self.pad_id),
            "labels": self._padded(labels, self.label_of_padding),
        }
        width = made["input_ids"].shape[1]
        # Padding is one more row of its own: it starts at position 0, and sees and shows nothing.
        whole = [[*row, width - sum(row)] for row in lengths]
        positions = [np.concatenate([np.arange(length) for length in row]) for row in whole]
        made["position_ids"] = torch.from_numpy(np.stack(positions))
        if self.form == "blocks":
            made["attention_mask"] = block_mask(whole, self.dtype)
        return made

    def _padded(self, rows: list[np.ndarray], fill: int) -> torch.Tensor:
        longest = max(map(len, rows))
        width = -(-longest // self.multiple_of) * self.multiple_of
        made = np.full((len(rows), width), fill, np.int64)
        for line, row in zip(made, rows, strict=True):
            line[: len(row)] = row
        return torch.from_numpy(made)


def block_mask(lengths: Sequence[Sequence[int]], dtype: torch.dtype) -> torch.Tensor:
    """Shape (batch, 1, width, width).

    0 where a token sees another of its row at or before it, else the least number.
    """
    numbers = torch.stack(
        [torch.repeat_interleave(torch.arange(len(row)), torch.tensor(row)) for row in lengths]
    )
    same = numbers[:, None, :, None] == numbers[:, None, None, :]
    sees = same & torch.ones(same.shape[-2:], dtype=torch.bool).tril()
    return torch.zeros(same.shape, dtype=dtype).masked_fill(~sees, torch.finfo(dtype).min)


def make_collator(
    data: DataConfig,
    tokenizer: "PreTrainedTokenizerBase",
    form: str = "positions",
    dtype: torch.dtype = torch.float32,
    multiple_of: int = 1,
    *,
    neat: bool | None = None,
) -> Collator:
    """The collator of a run; it takes packed rows and others. The tokenizer has a pad token.

    `neat` says whether rows of a pack are kept apart; None takes data.neat_packing's word.
    """
    pad_id = cast("int", tokenizer.pad_token_id)
    padding = IGNORED if data.ignore_pad_token_for_loss else pad_id
    return Collator(pad_id, padding, data.neat_packing if neat is None else neat, form, multiple_of, dtype)
