"""The base of the stages whose loss compares the policy with a reference (`stage=dpo`, `stage=kto`)."""

import logging
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, cast

import torch
from accelerate.data_loader import DataLoaderShard
from datasets import Dataset
from torch import nn
from transformers.trainer_utils import TrainOutput

from llmf_hydra.runs import signals as interrupt
from llmf_hydra.training.batches import Key, TrackedCollator
from llmf_hydra.training.context import RunContext
from llmf_hydra.training.pairs import AnswerBatch, row_alone
from llmf_hydra.training.reference.model import Reference, unit_of
from llmf_hydra.training.reference.store import Unit
from llmf_hydra.training.token_logprobs import install_head
from llmf_hydra.training.trainer import Batch, StageTrainer

log = logging.getLogger(__name__)
SAY_EVERY = 30.0  # seconds between two lines of progress
Place = tuple[Dataset, int]  # a row, before it is read


class ReferenceTrainer(StageTrainer[Batch]):
    """Holds the reference, scores all rows with it before the first step, and saves the scores with checkpoints."""

    def __init__(self, context: RunContext, collator: Callable[[Any], Any], reference: Reference):
        super().__init__(context, collator, reference.layout)
        self.reference = reference
        reference.place(self.accelerator)
        self.checkpoint.register("reference", reference)
        install_head(context.model)
        if reference.own is not None:
            install_head(reference.own)

    @abstractmethod
    def reference_score(self, network: nn.Module, batch: AnswerBatch) -> torch.Tensor:
        """What the loss needs of the reference for each row of a batch, shape (rows, n)."""

    def facts(self) -> dict[str, object]:
        """How many inputs the reference has computed, and how many were kept by earlier runs."""
        facts = super().facts()
        if not self.context.cfg.uses_reference or not self.reference.cached:
            return facts
        computed, kept = self._total(self.reference.computed, self.reference.kept)
        folder = self.reference.store.folder
        of_reference = {"computed": computed, "kept": kept, "key": folder.name if folder else None}
        return {**facts, "reference": of_reference}

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        try:
            return super().train(*args, **kwargs)
        finally:
            self.reference.store.flush()

    def _restore(self) -> None:
        super()._restore()
        if self.context.cfg.uses_reference and self.reference.cached:
            begun = time.monotonic()
            self._score_rows()
            self._since += time.monotonic() - begun  # tokens per second are those of training

    def _score_rows(self) -> None:
        """Have the reference's scores of all rows of the run that a checkpoint doesn't hold."""
        rows: dict[Key, Unit] = {}
        places: dict[Unit, Place] = {}
        for place in (*self._rows_to_train(), *self._rows_to_evaluate()):
            row = place[0][place[1]]
            key = int(row["source"]), int(row["row"])
            if key not in rows and not self.reference.holds(key):
                rows[key] = unit_of(self._alone(row))
                places[rows[key]] = place
        absent = sum(self.reference.store.get(unit) is None for unit in places)
        count, kept = self._total(len(places), len(places) - absent)
        if not count:
            return
        log.info(
            "reference: %d rows, %s", count, "kept from an earlier run" if kept == count else f"{kept} kept"
        )
        begun = said = time.monotonic()
        before = self.reference.computed

        def progress(computed: int) -> None:
            nonlocal said
            if time.monotonic() - said > SAY_EVERY:
                said = time.monotonic()
                log.info("reference: %d of %d rows computed by this process", computed - before, absent)

        self.reference.prepare(
            rows,
            lambda unit: self._alone(places[unit][0][places[unit][1]]),
            self.reference_score,
            said=progress,
            stop=interrupt.asked,
        )
        if kept < count:
            log.info("reference: done in %.1f s", time.monotonic() - begun)

    def _alone(self, row: Any) -> AnswerBatch:
        collator = cast("TrackedCollator[Any]", self.data_collator)
        return row_alone(collator.collate([row]), 0, 1)

    def _rows_to_train(self) -> Iterator[Place]:
        """The rows of this process in the order of its steps, epoch after epoch; one may come again."""
        loader = cast("DataLoaderShard", self.callback_handler.train_dataloader)
        rows, accumulated = cast("Dataset", self.train_dataset), self.args.gradient_accumulation_steps
        left = self.state.max_steps * accumulated
        seen: set[int] = set()
        for epoch in range(self.state.num_train_epochs):
            loader.set_epoch(epoch)
            batches = 0
            for batch in islice(cast("Any", loader.batch_sampler), left):
                batches += 1
                yield from ((rows, index) for index in batch if index not in seen)
                seen.update(batch)
            left -= -(-batches // accumulated) * accumulated  # the last step of an epoch may be a smaller one
            if left <= 0 or len(seen) == len(rows):
                break
        loader.set_epoch(0)  # as it was

    def _rows_to_evaluate(self) -> Iterator[Place]:
        """The rows that this process evaluates, where the run evaluates at all."""
        if self.args.eval_strategy == "no" or self.eval_dataset is None:
            return
        names = list(self.eval_dataset) if isinstance(self.eval_dataset, dict) else [None]
        for name in names:
            rows = self.share(name)
            yield from ((rows, index) for index in range(len(rows)))

    def _total(self, *own: int) -> tuple[int, ...]:
        """The sums over all processes."""
        sums = torch.tensor(own, device=self.args.device)
        return tuple(cast("torch.Tensor", self.accelerator.reduce(sums)).tolist())
