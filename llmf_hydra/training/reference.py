"""The reference of the preference stages: which model it is, and its log-probabilities, kept across epochs."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from llmf_hydra.models.load import load_model
from llmf_hydra.models.reference import load_reference
from llmf_hydra.training.context import Parts

START = "ref"  # TRL's name for a copy of the adapter that the run goes on from
Key = tuple[int, int]  # source and row


class NoReference(nn.Module):
    """Stands where TRL's trainers insist on a reference model, for losses that have none. It has no weights."""

    def __init__(self, config: PretrainedConfig):
        super().__init__()
        self.config = config


def reference_model(parts: Parts) -> PreTrainedModel | None:
    """A model of its own where the config names one or every weight is trained; None takes the policy's base."""
    rlhf = parts.cfg.rlhf
    if rlhf.ref_model or rlhf.ref_model_adapters or rlhf.ref_model_quantization_bit:
        return load_reference(rlhf, parts.cfg.model, parts.precision.weights, parts.model.config.vocab_size)
    if isinstance(parts.model, PeftModel):
        return None
    copy = load_model(parts.cfg.model, parts.precision.weights)
    copy.load_state_dict(parts.model.state_dict())
    return copy


def drop_copied_adapter(parts: Parts) -> None:
    """Take away TRL's copy of a fresh adapter. It changes nothing yet, so the bare base is the same reference.

    An adapter that the run goes on from is another start than the base: there the copy stays.
    """
    if isinstance(parts.model, PeftModel) and START in parts.model.peft_config and not goes_on(parts):
        parts.model.delete_adapter(START)


def goes_on(parts: Parts) -> bool:
    """Whether the adapter that is trained changes the model from the start."""
    return parts.cfg.trained_adapter is not None or parts.cfg.method.pissa_init


@contextmanager
def as_reference(policy: PreTrainedModel | PeftModel) -> Iterator[None]:
    """The policy as it was at the start: its adapter switched off, or the starting one switched on."""
    if not isinstance(policy, PeftModel):
        raise TypeError("a policy without adapters is no reference; it needs a model of its own")
    if START not in policy.peft_config:
        with policy.disable_adapter():
            yield
        return
    active = str(policy.active_adapter)
    policy.set_adapter(START, inference_mode=True)
    try:
        yield
    finally:
        policy.set_adapter(active)


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """No gradient and no dropout."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


class Kept:
    """Values of rows that are computed once: `n` numbers a row, float32."""

    FILE = "reference_log_probs_{rank}.safetensors"

    def __init__(self) -> None:
        self._of: dict[Key, torch.Tensor] = {}

    def get(self, rows: Sequence[Key], compute: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Values of some rows, shape (rows, n), on the CPU. `compute` is called if one of them isn't known yet.

        A value that is known stays: a row in another batch, padded to another length, would differ in the last
        bit, and a resumed run must not.
        """
        keys = [(int(source), int(row)) for source, row in rows]
        if not all(key in self._of for key in keys):
            for key, values in zip(keys, compute().detach().float().cpu(), strict=True):
                self._of.setdefault(key, values.clone())
        return torch.stack([self._of[key] for key in keys])

    def __len__(self) -> int:
        return len(self._of)

    def save(self, folder: Path, rank: int) -> None:
        """Write what is known into a checkpoint."""
        if self._of:
            keys = torch.tensor(list(self._of), dtype=torch.int64)
            save_file(
                {"rows": keys, "values": torch.stack(list(self._of.values()))},
                folder / self.FILE.format(rank=rank),
            )

    def load(self, folder: Path, rank: int) -> None:
        """Read what a checkpoint holds; nothing where it holds nothing."""
        file = folder / self.FILE.format(rank=rank)
        if file.exists():
            known = load_file(file)
            self._of = {(int(s), int(r)): v for (s, r), v in zip(known["rows"], known["values"], strict=True)}
