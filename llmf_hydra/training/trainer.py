"""The trainer of all stages: Transformers' loop, with losses that don't depend on how a step is cut into batches,
metrics by exact sums, and a check of every optimizer step."""

import tempfile
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import torch
from datasets import Dataset
from peft import PeftModel
from torch import nn
from torch.utils.data import DataLoader, Sampler
from transformers import EarlyStoppingCallback, Trainer
from transformers.trainer_utils import EvalLoopOutput, TrainOutput

from llmf_hydra.methods import loraplus, pissa
from llmf_hydra.models.architecture.apply import save_changed_config
from llmf_hydra.optimizers.build import (
    Rates,
    build_optimizer,
    follow_learning_rate,
    follow_settings,
    settings,
)
from llmf_hydra.optimizers.common.stepping import Layerwise, PerWeightOptimizer
from llmf_hydra.runs import checkpoints, seal, trained_with
from llmf_hydra.runs import signals as interrupt
from llmf_hydra.training.arguments import training_arguments
from llmf_hydra.training.batches import ROWS, TOKENS, Key, LongestFirst, TrackedCollator
from llmf_hydra.training.callbacks import RestoreState, StopWhenAsked
from llmf_hydra.training.context import RunContext
from llmf_hydra.training.health import HealthCheck
from llmf_hydra.training.metrics import EVAL, MetricSums
from llmf_hydra.training.parallelism import check_processes, check_wrapper
from llmf_hydra.training.saving import save_whole
from llmf_hydra.training.state import CheckpointState, RunningLoss

SPEED = "effective_tokens_per_second"
TRAINED = "default"  # PEFT's name of the adapter that is trained
Batch = TypeVar("Batch", bound=Mapping[str, Any])
Rows = Dataset | str | None  # rows to evaluate: a dataset, the one of that name, or those of the run


class StageTrainer(Trainer, Generic[Batch]):
    """Base of the trainers of all stages. A stage says what its loss is a mean of, in `unreduced_loss`.

    `Batch` is what the stage's collator makes (a TrackedCollator), without `rows` and `tokens`.
    """

    loss_is_scaled_for_ga = True  # compute_loss divides by the terms of the whole optimizer step

    def __init__(self, context: RunContext, collator: Callable[[Any], Any], model: nn.Module | None = None):
        """`model` is what is trained where it is more than the context's model."""
        self.context = context
        self.rows: list[Key] = []  # of the current batch
        self.metrics, self.health, self.checkpoint = MetricSums(), HealthCheck(context), CheckpointState()
        self.running_loss, self.stop = RunningLoss(self), StopWhenAsked()
        self._tokens, self._since = 0, time.monotonic()
        self._resumed: str | None = None
        # Those that an evaluation before the first step left.
        self._random_states: tempfile.TemporaryDirectory[str] | None = None
        self._layerwise: Layerwise | None = None
        self._settings: list[dict[str, Any]] = []  # of the optimizer's groups, as the config has them
        self._writes_to: Path | None = None  # above the checkpoint that is being written
        patience = context.cfg.training.early_stopping_patience
        stopping = [EarlyStoppingCallback(patience)] if patience is not None else []
        super().__init__(
            model=context.model if model is None else model,
            args=training_arguments(context),
            data_collator=collator,  # pyright: ignore[reportArgumentType]
            train_dataset=context.train,
            eval_dataset=context.eval,  # pyright: ignore[reportArgumentType]
            processing_class=context.tokenizer,
            callbacks=[RestoreState(self._begin), self.stop, *context.callbacks, *stopping],
        )
        if isinstance(self.model, PeftModel) and self.args.activation_checkpointing:
            self.model.enable_input_require_grads()  # over a frozen embedding, checkpoints need a gradient to follow
        self.checkpoint.register("metrics", self.metrics)
        self.checkpoint.register("loss", self.running_loss)
        self.checkpoint.register("stop", self.stop)
        check_processes(context.cfg.launch, self.accelerator)

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
        self._tokens += inputs.pop(TOKENS)
        loss = super().training_step(model, inputs, num_items_in_batch)
        self.health.add(loss, self.rows)
        return loss

    def _get_grad_norm(self, model: nn.Module, grad_norm: torch.Tensor | float | None = None) -> object:
        """What Transformers asks for between the backward pass and the optimizer: here a bad step is stopped."""
        norm: Any = self._layerwise.norm() if self._layerwise else super()._get_grad_norm(model, grad_norm)
        self.health.check(norm, self.state.global_step + 1)
        return norm

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The optimizer that the config names, over what is trained."""
        if self.optimizer is None:
            cfg, trained = self.context.cfg, cast("nn.Module", self.model if model is None else model)
            training = cfg.training
            rates = Rates(*loraplus.rates(trained, cfg.method))
            built = build_optimizer(trained, cfg.optimizer, training.learning_rate, training.seed, rates)
            self.optimizer, self._settings = built, settings(built)
            self._layerwise = built.layerwise if isinstance(built, PerWeightOptimizer) else None
        return self.optimizer

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
        tokens = self.accelerator.reduce(torch.tensor(float(self._tokens), device=self.args.device))
        speed = float(cast("torch.Tensor", tokens)) / max(now - self._since, 1e-9)
        self._tokens, self._since = 0, now
        return round(speed, 1)

    def facts(self) -> dict[str, object]:
        """What the run's manifest says of the stage; all processes ask."""
        return {}

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

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        begun = time.monotonic()
        try:
            return super().evaluate(*args, **kwargs)
        finally:
            self._since += time.monotonic() - begun  # tokens per second are those of training

    # Checkpoints

    def train(
        self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any
    ) -> TrainOutput:
        """Train, or go on from a checkpoint folder."""
        self._resumed = str(resume_from_checkpoint) if resume_from_checkpoint else None
        return super().train(self._resumed, *args, **kwargs)

    def save_final(self) -> None:
        """Save the final model and the tokenizer, whole or not at all. Raises TrainingFailed where it can't."""
        save_whole(self.accelerator, self.context.out, checkpoints.FINAL, self._write_final)

    def _write_final(self, folder: Path) -> None:
        self.save_model(str(folder))
        cfg = self.context.cfg
        if self.args.should_save and cfg.starts_on_residual and not cfg.leaves_residual:
            pissa.convert(folder)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Save a checkpoint, whole or not at all; only then are older ones removed."""
        out, name = self.context.out, f"{checkpoints.PREFIX}{self.state.global_step}"
        best = self._best_checkpoint()
        weights = self.context.weights_digests() if self.args.should_save else {}
        trained = trained_with.record(self.context.cfg, self.context.data_digest, weights)
        record = {"step": self.state.global_step} | trained
        save_whole(
            self.accelerator, out, name, lambda folder: self._write_checkpoint(folder, trial, best), record
        )
        if self.args.should_save:
            checkpoints.remove_surplus(out, self.args.save_total_limit, self.state.best_model_checkpoint)

    def _best_checkpoint(self) -> str | None:
        """The folder of the best evaluated model, which may be the one that is about to be saved."""
        step = self.state.best_global_step
        folder = self.context.out / f"{checkpoints.PREFIX}{step}"
        if step and (step == self.state.global_step or folder.is_dir()):
            return str(folder)
        return self.state.best_model_checkpoint

    def _write_checkpoint(self, folder: Path, trial: Any, best: str | None) -> None:
        """Write what Transformers writes, into a folder that isn't in its place yet."""
        self._writes_to = folder.parent
        state, step = self.state, self.state.best_global_step
        # It would look for the best checkpoint beside this one, and remove the surplus there.
        state.best_model_checkpoint, state.best_global_step = best, None
        try:
            super()._save_checkpoint(cast("nn.Module", self.model), trial)
        finally:
            self._writes_to, state.best_global_step = None, step
        if self.args.should_save:
            state.save_to_json(str(folder / seal.STATE))

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._writes_to or self.context.out)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save model and tokenizer; a checkpoint (an internal call) gets the states of this run's parts first.

        Raises TrainingFailed, before anything is written, for weights that aren't finite.
        """
        self.health.check_weights(cast("nn.Module", self.model), self._stepped(), self.state.global_step)
        if _internal_call and output_dir is not None:
            self.checkpoint.save(Path(output_dir), self.args.process_index)
        super().save_model(output_dir, _internal_call)
        if self.args.should_save:
            folder = Path(output_dir or str(self.args.output_dir))
            if self.context.cfg.starts_on_residual:
                pissa.write_residual(cast("PeftModel", self.context.model), folder)
            checkpoints.tidy(folder)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        """Save as plain Transformers or PEFT loads it: no other adapter, no pickled arguments."""
        if not self.args.should_save:
            return
        folder, model = output_dir or str(self.args.output_dir), self.model
        if isinstance(model, PeftModel):
            model.save_pretrained(folder, selected_adapters=[TRAINED], state_dict=state_dict)
            save_changed_config(model, folder, self.context.cfg.model)
        else:
            model.save_pretrained(folder, state_dict=state_dict)  # pyright: ignore
        self.context.tokenizer.save_pretrained(folder)

    def _begin(self) -> None:
        """What comes before the first step, or before the first of a resumed run."""
        self._restore()
        if self._resumed is not None and self.stop.evaluation_is_due:
            self._make_up_for_evaluation(self._resumed)

    def _make_up_for_evaluation(self, checkpoint: str) -> None:
        """Evaluate as the stopped run would have, after the checkpoint's step; random numbers go on from there."""
        self.stop.evaluation_is_due = False
        self._load_rng_state(checkpoint)
        control = self.control
        control.should_evaluate, control.should_log, control.should_save = True, False, False
        self._maybe_log_save_evaluate(
            self._tr_loss,
            None,
            cast("nn.Module", self.model),
            None,
            int(self.state.epoch or 0),
            None,
            time.time(),
        )
        self._random_states = tempfile.TemporaryDirectory()
        self._save_rng_state(self._random_states.name)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        super()._load_rng_state(checkpoint if self._random_states is None else self._random_states.name)

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """An epoch, or none where the checkpoint was the last step's, or the evaluation after it stopped early."""
        if self._resumed is not None and self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        if not self.control.should_training_stop:
            super()._run_epoch(*args, **kwargs)

    def _stepped(self) -> set[torch.Tensor]:
        """The weights that the optimizer has, those included that have no gradient at this time."""
        groups = self.optimizer.param_groups if self.optimizer is not None else []
        return {weight for group in groups for weight in group["params"]}

    def _restore(self) -> None:
        """Hand the parts their states, once Transformers has read its own and has set its sums to 0."""
        if self._resumed is None:
            return
        self.checkpoint.load(Path(self._resumed), self.args.process_index)
        if self.context.cfg.starts_on_residual:
            pissa.restore(cast("PeftModel", self.context.model), Path(self._resumed))
        rate = self.context.cfg.training.learning_rate
        optimizer = cast("torch.optim.Optimizer", self.optimizer)
        follow_settings(optimizer, self._settings)
        follow_learning_rate(optimizer, [self.lr_scheduler], rate)
