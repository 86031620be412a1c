"""What the trainers of `stage=dpo` and `stage=kto` share: log-probabilities of the reference, kept across epochs."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from llmf_hydra.training.context import Parts
from llmf_hydra.training.reference import START, Kept, NoReference, as_reference, frozen
from llmf_hydra.training.trainer import Watched


class Referenced(Watched):
    """Stands before TRL's DPO or KTO trainer; `ref_model` is theirs: a model, or None for the policy's own start."""

    ref_model: nn.Module | None

    def __init__(self, *args: Any, parts: Parts, **kwargs: Any):
        self.kept = Kept()
        # The attention mask must have the type in which the model computes.
        self.mask_dtype = torch.bfloat16 if parts.precision.autocast else parts.precision.weights
        super().__init__(*args, parts=parts, **kwargs)
        if isinstance(self.ref_model, NoReference):
            self.ref_model = None

    @contextmanager
    def reference(self) -> Iterator[nn.Module]:
        """The model whose log-probabilities are the reference's, without gradient and dropout."""
        if self.ref_model is not None:
            with frozen(self.ref_model):
                yield self.ref_model
        else:
            policy: Any = self.accelerator.unwrap_model(self.model)
            with frozen(policy), as_reference(policy):
                yield policy

    def kept_reference(self, compute: Callable[[nn.Module], torch.Tensor]) -> torch.Tensor:
        """What `compute` makes of the reference for the batch's rows, shape (rows, n): once a row, however often
        it is seen. Rows that are read while training are too many to keep."""

        def computed() -> torch.Tensor:
            with self.reference() as model:
                return compute(model)

        if self.parts.cfg.data.streaming:
            return computed()
        return self.kept.get(self.rows, computed).to(self.args.device)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """As ever, but without the adapter that the run went on from: it lies where the config says."""
        super()._save(output_dir, state_dict)
        if self.args.should_save:
            shutil.rmtree(Path(output_dir or str(self.args.output_dir)) / START, ignore_errors=True)

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        self.kept.save(Path(output_dir), self.args.process_index)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        super()._load_rng_state(checkpoint)
        if checkpoint is not None:
            self.kept.load(Path(checkpoint), self.args.process_index)
