"""The trainer of all stages: Transformers' loop, with losses that don't depend on how a step is cut into batches,
metrics by exact sums, and a check of every optimizer step."""

import logging
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar, cast

import torch
from datasets import Dataset
from peft import PeftModel
from torch import nn
from torch.utils.data import DataLoader, Sampler
from transformers import TrainingArguments
from transformers.trainer_utils import EvalLoopOutput

from llmf_hydra.runs import signals as interrupt
from llmf_hydra.tracking.contract import Table
from llmf_hydra.training.arguments import training_arguments
from llmf_hydra.training.batches import ROWS, TOKENS, Key, LongestFirst, TrackedCollator
from llmf_hydra.training.context import RunContext
from llmf_hydra.training.layout.rows import Layout
from llmf_hydra.training.metrics import EVAL, MetricSums
from llmf_hydra.training.parallelism import check_processes, check_wrapper
from llmf_hydra.training.resumable import ResumableTrainer
from llmf_hydra.training.state import RunningLoss

log = logging.getLogger(__name__)
SPEED = "effective_tokens_per_second"
Batch = TypeVar("Batch", bound=Mapping[str, Any])
Rows = Dataset | str | None  # rows to evaluate: a dataset, the one of that name, or those of the run


class SteppingTrainer(ResumableTrainer):
    """What every trainer has of its optimizer steps: the check of each, the running loss, the speed.

    A trainer tells this class the `rows` of each batch, its `tokens`, and its loss (`health.add`)."""

    def __init__(
        self, context: RunContext, model: nn.Module | None, args: TrainingArguments, **own: Any
    ) -> None:
        self.rows: list[Key] = []  # of the current batch
        self.tokens = 0  # without padding, since the speed was asked for
        self.running_loss, self._since = RunningLoss(self), time.monotonic()
        super().__init__(context, model, args, **own)
        self.checkpoint.register("loss", self.running_loss)
        check_processes(context.cfg.launch, self.accelerator)

    def _get_grad_norm(self, model: nn.Module, grad_norm: torch.Tensor | float | None = None) -> object:
        """What Transformers asks for between the backward pass and the optimizer: here a bad step is stopped."""
        norm: Any = self._layerwise.norm() if self._layerwise else super()._get_grad_norm(model, grad_norm)
        self.health.check(norm, self.state.global_step + 1)
        return norm

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            speed = self._speed()
            if self.context.cfg.training.include_effective_tokens_per_second:
                logs[SPEED] = speed
        if "train_loss" in logs:
            logs["train_loss"] = self.running_loss.mean(logs["train_loss"])
        if "train_loss" in logs and interrupt.asked():
            return  # the end of the training, which hasn't come yet: the resumed run reports it
        super().log(logs, start_time)

    def _speed(self) -> float:
        """Tokens that all processes computed, without padding, per second of training since the last call."""
        now = time.monotonic()
        tokens = self.accelerator.reduce(torch.tensor(float(self.tokens), device=self.args.device))
        speed = float(cast("torch.Tensor", tokens)) / max(now - self._since, 1e-9)
        self.tokens, self._since = 0, now
        return round(speed, 1)

    def facts(self) -> dict[str, object]:
        """What the run's manifest says of the stage; all processes ask."""
        return {}

    def newest_table(self) -> Table | None:
        """What the trackers show beside the metrics of a logging step; most stages have nothing."""
        return None

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        begun = time.monotonic()
        try:
            return super().evaluate(*args, **kwargs)
        finally:
            self._since += time.monotonic() - begun  # tokens per second are those of training


class StageTrainer(SteppingTrainer, Generic[Batch]):
    """Base of the trainers of all stages. A stage says what its loss is a mean of, in `unreduced_loss`.

    `Batch` is what the stage's collator makes (a TrackedCollator), without `rows` and `tokens`.
    """

    loss_is_scaled_for_ga = True  # compute_loss divides by the terms of the whole optimizer step

    def __init__(
        self,
        context: RunContext,
        collator: Callable[[Any], Any],
        layout: Layout,
        model: nn.Module | None = None,
    ):
        """`model` is what is trained where it is more than the context's model; `layout` that of the batches."""
        self.metrics, self.layout = MetricSums(), layout
        super().__init__(context, model, training_arguments(context), data_collator=collator)
        if isinstance(self.model, PeftModel) and self.args.activation_checkpointing:
            self.model.enable_input_require_grads()  # over a frozen embedding, checkpoints need a gradient to follow
        self.checkpoint.register("metrics", self.metrics)
        log.info("padding: %s", layout.facts()["padding"])

    def facts(self) -> dict[str, object]:
        return {**super().facts(), **self.layout.facts()}

    # The loss

    @abstractmethod
    def unreduced_loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """What the stage's loss is the mean of, shape (n,): a term for each token, pair or answer that is trained."""

    def loss_terms(self, batch: Batch) -> torch.Tensor:
        """How many terms `unreduced_loss` will give, a scalar, before they are computed: here one per row."""
        return torch.tensor(len(batch[ROWS]))

    def network_loss(self) -> torch.Tensor | float:
        """What a network adds to the loss of the batch that was just computed, a scalar; most add nothing."""
        return 0.0

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """The batch's part of the mean over the whole step; at evaluation the mean of the batch itself.

        In training the network's own loss is added, weighted by the batch's share of the terms.
        """
        losses = self.unreduced_loss(model, cast("Batch", inputs))
        if num_items_in_batch is None:
            self.note(loss=losses.detach())
            return losses.sum() / max(len(losses), 1)
        # DDP divides by the processes.
        terms = cast("torch.Tensor", num_items_in_batch).clamp(min=1)
        whole = losses.sum() + self.network_loss() * len(losses)
        return whole * self.accelerator.num_processes / terms

    def get_batch_samples(
        self, epoch_iterator: Iterator[Batch], num_batches: int, device: torch.device
    ) -> tuple[list[Batch], torch.Tensor | None]:
        """The micro-batches of an optimizer step and the number of their terms, over all processes.

        A loss that is divided by it is the same however the step is cut into batches.
        """
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        if not batches:
            return batches, None
        terms = torch.stack([self.loss_terms(batch) for batch in batches]).sum().to(device, torch.float32)
        return batches, cast("torch.Tensor", self.accelerator.reduce(terms))

    def training_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        check_wrapper(self.context.cfg.launch, model)
        self.rows = inputs.pop(ROWS)
        self.tokens += inputs.pop(TOKENS)
        loss = super().training_step(model, inputs, num_items_in_batch)
        self.health.add(loss, self.rows)
        return loss

    # Metrics

    def note(self, **metrics: torch.Tensor) -> None:
        """Add values of any shape to metrics, `a__b` to `a/b`; a line shows the means since the line before."""
        for name, values in metrics.items():
            self.note_where(name.replace("__", "/"), values)

    def note_where(self, name: str, values: torch.Tensor, where: torch.Tensor | None = None) -> None:
        """Add those values to a metric at which the mask is true."""
        self.metrics.add(("" if cast("nn.Module", self.model).training else EVAL) + name, values, where)

    def means(self, prefix: str = "") -> dict[str, float]:
        """The means since the last call; see `MetricSums.take_means`."""
        return self.metrics.take_means(prefix)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if not any(key.startswith(EVAL) for key in logs):
            logs.update(self.means())
        super().log(logs, start_time)

    # Evaluation

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[torch.Tensor | None, None, None]:
        """The loss alone: the metrics are noted while it is computed, and no logits are held."""
        inputs = self._prepare_inputs(inputs)
        self.rows = inputs.pop(ROWS)
        inputs.pop(TOKENS)
        with torch.no_grad(), self.compute_loss_context_manager():
            return self.compute_loss(model, inputs).detach(), None, None

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """This process's share of a dataset, or of the one of that name; no row is seen twice."""
        if self.args.world_size == 1:
            return super().get_eval_dataloader(eval_dataset)
        rows = self.share(eval_dataset)
        return DataLoader(
            rows,  # pyright: ignore[reportArgumentType]
            sampler=self._get_eval_sampler(rows),
            batch_size=self.args.eval_batch_size,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
        )

    @property
    def rows_are_apart(self) -> bool:
        """Whether a row's loss is the same whichever rows are evaluated beside it, but for rounding."""
        return True

    def _get_eval_sampler(self, eval_dataset: Any) -> Sampler[int] | None:
        """Rows of like length together, where they may be reordered: fewer tokens are padding."""
        collator = self.data_collator
        if (
            isinstance(eval_dataset, Dataset)
            and isinstance(collator, TrackedCollator)
            and self.rows_are_apart
        ):
            return LongestFirst(eval_dataset, collator.tokens)
        return super()._get_eval_sampler(cast("Any", eval_dataset)) if self.args.world_size == 1 else None

    def share(self, eval_dataset: Rows = None) -> Dataset:
        """The rows of a dataset, or of the one of that name, that this process evaluates."""
        chosen = self.eval_dataset if eval_dataset is None else eval_dataset
        rows = cast("Dataset", self.eval_dataset[chosen] if isinstance(chosen, str) else chosen)  # pyright: ignore
        return rows.select(range(self.args.process_index, len(rows), self.args.world_size))

    def evaluation_loop(
        self, dataloader: DataLoader, *_: object, metric_key_prefix: str = "eval", **__: object
    ) -> EvalLoopOutput:
        """The means of what is noted of the rows, over all processes, however they are cut into batches."""
        model = cast("nn.Module", self.model)
        training, seen = model.training, 0
        model.eval()
        for batch in dataloader:
            seen += len(batch[ROWS])
            self.prediction_step(model, batch, prediction_loss_only=True)
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        self.note_rows(cast("Dataset", dataloader.dataset))
        metrics = self.means(f"{metric_key_prefix}_")
        model.train(training)
        total = cast("torch.Tensor", self.accelerator.reduce(torch.tensor(seen, device=self.args.device)))
        return EvalLoopOutput((), None, metrics, num_samples=int(total))  # pyright: ignore[reportArgumentType]

    def note_rows(self, rows: Dataset) -> None:
        """What a stage notes of the rows of an evaluation beside their losses: nothing."""
