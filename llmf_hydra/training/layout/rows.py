"""How the rows of a batch lie: end to end in one line, of which no token is padding, or below each other, padded.

It is decided once per run, by the model, and told in the log and the manifest.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel

from llmf_hydra.config.schema import Config
from llmf_hydra.models.architecture import padding_free
from llmf_hydra.models.network import Network

INPUTS = ("input_ids", "attention_mask", "position_ids")  # what a model takes of a batch


@dataclass(frozen=True)
class Layout:
    """The layout of a run's batches."""

    padded: str | None  # why padding is computed; None where it isn't
    by_row: bool = (
        False  # whether attention is told the rows (`padding_free`), not by positions alone, as flash is
    )

    @property
    def line(self) -> bool:
        """Whether the rows of a batch lie end to end."""
        return self.padded is None

    def facts(self) -> dict[str, object]:
        """What the run's manifest says of it."""
        return {"padding": "none is computed" if self.line else f"computed: {self.padded}"}


PADDED = Layout("the batch is padded")


def layout_of(cfg: Config, model: Network, reference: Network | None = None) -> Layout:
    """The layout of a run's batches, which policy and reference both can take."""
    if cfg.model.use_unsloth:
        return Layout("unsloth has an attention of its own")
    if cfg.training.neftune_noise_alpha:
        return Layout("training.neftune_noise_alpha weighs its noise by the length of the rows")
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    if base.config._attn_implementation.startswith("flash"):
        takes = padding_free.has_positions(base)
        return Layout(None if takes else f"a {base.config.model_type} model takes no position_ids")
    reason = padding_free.unfit(model)
    if reason is None and reference is not None and (other := padding_free.unfit(reference)) is not None:
        reason = f"of the reference model, {other}"
    if reason is None:
        padding_free.register()
    return Layout(reason, by_row=reason is None)


def apart(batch: Mapping[str, Any]) -> AbstractContextManager[None]:
    """Where a batch's forward pass is made: with the borders of rows that lie end to end."""
    return rows_apart(batch, batch.get("lengths", ()), batch.get("prefixes", ()))


def rows_apart(
    inputs: Mapping[str, Any], lengths: tuple[int, ...], prefixes: tuple[int, ...] = ()
) -> AbstractContextManager[None]:
    """The same for a model's inputs. Without a mask it is positions that tell the rows (`Layout.by_row` is false)."""
    if not lengths or "attention_mask" not in inputs:
        return nullcontext()
    return padding_free.end_to_end(padding_free.Rows(lengths, prefixes))


def model_inputs(batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """What a model takes of a batch."""
    return {name: batch[name] for name in INPUTS if name in batch}
