"""What PPO trains on: rollouts with their log-probabilities, values, advantages and returns."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import torch
from torch.nn import functional as F

from llmf_hydra.training.rl.passes import Spans

Key = tuple[int, int]  # source and row of a prompt


@dataclass(frozen=True)
class Buffer:
    """Rollouts with all that their training needs. All but `keys` are tensors of one count of rows."""

    ids: torch.Tensor
    attention: torch.Tensor
    mask: torch.Tensor
    log_probs: torch.Tensor  # (rows, answer): log p of each token under the policy that chose it
    values: torch.Tensor  # (rows, answer): what the value head expected then
    advantages: torch.Tensor  # (rows, answer), whitened over the buffer
    returns: torch.Tensor  # (rows, answer): what the value head should have expected
    keys: list[Key]

    def take(self, rows: Sequence[int]) -> dict[str, Any]:
        """A batch of some rows, without columns in which none of them has a token."""
        spans = self.spans.take(rows)
        chosen = {name: tensor[list(rows)] for name, tensor in self.tensors().items()}
        answer, start = max(spans.answers), self.ids.shape[1] - self.mask.shape[1]
        first, last = start - max(spans.prompts), start + answer
        batch: dict[str, Any] = {
            name: tensor[:, first:last] if name in ("ids", "attention") else tensor[:, :answer]
            for name, tensor in chosen.items()
        }
        batch["spans"] = spans
        batch["rows"] = [self.keys[row] for row in rows]
        batch["tokens"] = sum(spans.prompts) + sum(spans.answers)
        return batch

    @cached_property
    def spans(self) -> Spans:
        """The tokens of prompts and answers, looked up once per buffer."""
        return Spans.of(self.attention, self.mask)

    def tensors(self) -> dict[str, torch.Tensor]:
        """The tensors by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "keys"}

    def state(self) -> dict[str, object]:
        """For a checkpoint: the buffer as `torch.save` writes and `torch.load` reads it safely."""
        return {**{name: tensor.cpu() for name, tensor in self.tensors().items()}, "keys": self.keys}

    @classmethod
    def from_state(cls, state: dict[str, Any], device: torch.device) -> "Buffer":
        """The buffer of a checkpoint."""
        moved = {name: value.to(device) for name, value in state.items() if name != "keys"}
        return cls(**moved, keys=[(int(source), int(row)) for source, row in state["keys"]])


def joined(parts: Sequence[dict[str, torch.Tensor]], pad_id: int) -> dict[str, torch.Tensor]:
    """The tensors of several rollout batches below each other, at the widths of the widest.

    Prompts widen on the left and answers on the right; `ids` by the padding token, all else by 0.
    """
    prompt = max(part["ids"].shape[1] - part["mask"].shape[1] for part in parts)
    answer = max(part["mask"].shape[1] for part in parts)
    return {
        name: torch.cat([_widened(part, name, prompt, answer, pad_id) for part in parts]) for name in parts[0]
    }


def _widened(part: dict[str, torch.Tensor], name: str, prompt: int, answer: int, pad_id: int) -> torch.Tensor:
    missing = answer - part["mask"].shape[1]
    left = prompt - (part["ids"].shape[1] - part["mask"].shape[1]) if name in ("ids", "attention") else 0
    return F.pad(part[name], (left, missing), value=pad_id if name == "ids" else 0)
