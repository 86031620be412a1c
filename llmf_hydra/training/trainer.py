"""What every stage's trainer does beside its loss: metrics by exact sums, tokens a second, and stopping at a loss
that is no number."""

import time
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import nn
from torch.utils.data import DataLoader
from transformers import Trainer
from transformers.trainer_utils import EvalLoopOutput

from llmf_hydra.errors import TrainingFailed
from llmf_hydra.training.context import Parts
from llmf_hydra.training.parallelism import check_processes, check_wrapper

Row = Mapping[str, Any]
ROWS, TOKENS = "rows", "tokens"  # what a batch holds beside the inputs of the model
SPEED = "effective_tokens_per_second"


@dataclass(frozen=True)
class KnownRows:
    """A collator that also says which rows a batch holds, as (source, row), and their number of tokens."""

    collate: Callable[[Sequence[Row]], dict[str, Any]]
    columns: tuple[str, ...]  # whose lengths are the row's tokens; a column named twice counts twice

    def __call__(self, rows: Sequence[Row]) -> dict[str, Any]:
        batch = self.collate(rows)
        batch[ROWS] = [pair for row in rows for pair in _numbers(row)]
        batch[TOKENS] = sum(len(row[column]) for row in rows for column in self.columns)
        return batch


def _numbers(row: Row) -> list[tuple[int, int]]:
    """A packed row holds several rows of the data."""
    if isinstance(row["row"], list):
        return list(zip(row["source"], row["row"], strict=True))
    return [(row["source"], row["row"])]


class Watched(Trainer):
    """Stands before a TRL trainer: `class OurTrainer(Watched, DPOTrainer)`. Its collator is a KnownRows."""

    loss_is_scaled_for_ga = True  # compute_loss divides by what is trained in the whole optimizer step

    def __init__(self, *args: Any, parts: Parts, **kwargs: Any):
        self.parts = parts
        self.rows: list[tuple[int, int]] = []  # source and row of what the current batch holds
        self._sums: dict[str, torch.Tensor] = defaultdict(lambda: torch.zeros(2, dtype=torch.float64))
        self._tokens, self._since = 0, time.monotonic()
        super().__init__(*args, **kwargs)
        check_processes(parts.cfg.launch, self.accelerator)

    def note(self, **metrics: torch.Tensor) -> None:
        """Add values of any shape to their metrics; the log shows the mean of all values since the last one."""
        prefix = "" if self.model.training else "eval_"  # pyright: ignore
        for name, values in metrics.items():
            known = torch.tensor([values.sum(), values.numel()], dtype=torch.float64)
            self._sums[prefix + name.replace("__", "/")] += known

    @abstractmethod
    def losses_of(self, model: nn.Module, inputs: dict[str, Any]) -> torch.Tensor:
        """What the stage's loss is a mean of, shape (n,): a loss for each token, pair or answer that is trained."""

    def weight(self, batch: Mapping[str, Any]) -> torch.Tensor:
        """How many losses a batch will give, before they are known: here one a row."""
        return torch.tensor(len(batch[ROWS]))

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> torch.Tensor:
        """The batch's part of the mean over the whole step; at evaluation the mean of the batch itself."""
        losses = self.losses_of(model, inputs)
        if num_items_in_batch is None:
            self.note(loss=losses.detach())
            return losses.sum() / max(len(losses), 1)
        # DDP divides by the processes.
        return losses.sum() * self.accelerator.num_processes / num_items_in_batch.clamp(min=1)

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        """TRL's trainers would tokenize here: the rows are tokens already."""
        return dataset

    def get_batch_samples(
        self, epoch_iterator: Any, num_batches: int, device: torch.device
    ) -> tuple[list, Any]:
        """The batches of an optimizer step and their whole weight, over all processes.

        A loss that is divided by it is the same however the step is cut into batches.
        """
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        if not batches:
            return batches, None
        whole = torch.stack([self.weight(batch) for batch in batches]).sum().to(device, torch.float32)
        return batches, self.accelerator.reduce(whole)

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        check_wrapper(self.parts.cfg.launch, model)
        self.rows = inputs.pop(ROWS)
        self._tokens += inputs.pop(TOKENS)
        loss = super().training_step(model, inputs, num_items_in_batch)
        if not torch.isfinite(loss):
            raise TrainingFailed(self._no_number(float(loss)))
        return loss

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[torch.Tensor | None, None, None]:
        """The loss alone: the metrics are noted while it is computed, and no logits are held."""
        inputs = self._prepare_inputs(inputs)
        self.rows = inputs.pop(ROWS)
        inputs.pop(TOKENS)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss: Any = self.compute_loss(model, inputs)
            return loss.detach(), None, None

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """This process's share of a dataset, or of the one of that name; no row is seen twice."""
        if self.args.world_size == 1:
            return super().get_eval_dataloader(eval_dataset)
        return DataLoader(
            self.share(eval_dataset),
            batch_size=self.args.eval_batch_size,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
        )

    def share(self, eval_dataset: Any = None) -> Any:
        """The rows of a dataset, or of the one of that name, that this process evaluates."""
        rows: Any = self.eval_dataset if eval_dataset is None else eval_dataset
        if isinstance(eval_dataset, str):
            rows = self.eval_dataset[eval_dataset]  # pyright: ignore
        return rows.select(range(self.args.process_index, len(rows), self.args.world_size))

    def evaluation_loop(
        self, dataloader: DataLoader, *_: Any, metric_key_prefix: str = "eval", **__: Any
    ) -> EvalLoopOutput:
        """The means of what is noted of the rows, over all processes, however they are cut into batches."""
        model: Any = self.model
        training, seen = model.training, 0
        model.eval()
        for batch in dataloader:
            seen += len(batch[ROWS])
            self.prediction_step(model, batch, prediction_loss_only=True)
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        self.note_beside(dataloader.dataset)
        metrics = self._means(f"{metric_key_prefix}_")
        model.train(training)
        return EvalLoopOutput((), None, metrics, num_samples=sum(gather_object([seen])))  # pyright: ignore

    def note_beside(self, rows: Any) -> None:
        """What a stage notes of the rows of an evaluation beside their losses: nothing."""

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        begun = time.monotonic()
        try:
            return super().evaluate(*args, **kwargs)
        finally:
            self._since += time.monotonic() - begun  # tokens a second are those of training

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if not any(key.startswith("eval_") for key in logs):
            logs.update(self._means())
        if "loss" in logs:
            speed = self._speed()
            if self.parts.cfg.training.include_effective_tokens_per_second:
                logs[SPEED] = speed
        super().log(logs, start_time)

    def _means(self, prefix: str = "") -> dict[str, float]:
        """The means of what was noted, over all processes; at evaluation under the prefix of the dataset
        (`eval_NAME_`)."""
        # An evaluation may come between two lines of training, whose sums then wait for their own line.
        names = [name for name in self._sums if name.startswith("eval_") == bool(prefix)]
        mine = {name: self._sums.pop(name) for name in names}
        whole: dict[str, torch.Tensor] = {}
        for sums in gather_object([mine]):
            for name, known in sums.items():
                whole[name] = whole[name] + known if name in whole else known
        shown = {name: prefix + name.removeprefix("eval_") if prefix else name for name in sorted(whole)}
        return {shown[name]: float(whole[name][0] / whole[name][1]) for name in shown if whole[name][1] > 0}

    def _speed(self) -> float:
        """Tokens without padding of all processes, a second of training since the last call."""
        now = time.monotonic()
        tokens: Any = self.accelerator.reduce(torch.tensor(float(self._tokens), device=self.args.device))
        speed = float(tokens) / max(now - self._since, 1e-9)
        self._tokens, self._since = 0, now
        return round(speed, 1)

    def _no_number(self, loss: float) -> str:
        names, training = self.parts.sources, self.parts.cfg.training
        by_source: dict[str, list[int]] = defaultdict(list)
        for source, row in self.rows:
            by_source[names[source] if source < len(names) else f"dataset {source}"].append(int(row))
        shown = "; ".join(f"{name} {', '.join(map(str, sorted(at)))}" for name, at in by_source.items())
        return (
            f"step {self.state.global_step + 1}: the loss is {loss}; the batch held the rows {shown}; "
            f"lower training.learning_rate (it is {training.learning_rate:g}), set training.max_grad_norm, compute in "
            "float32 (model.compute_dtype=float32), or look at these rows with job=preview"
        )
