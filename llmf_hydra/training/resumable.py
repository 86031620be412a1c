"""Transformers' trainer with checkpoints that are whole, hold all of a run's state, and are gone on from exactly."""

import tempfile
import time
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel
from torch import nn
from transformers import EarlyStoppingCallback, Trainer, TrainingArguments
from transformers.trainer_utils import TrainOutput

from llmf_hydra.config.choices import METHODS
from llmf_hydra.methods import loraplus, pissa
from llmf_hydra.models import adapters
from llmf_hydra.models.architecture.apply import save_changed_config
from llmf_hydra.optimizers.build import (
    Rates,
    build_optimizer,
    follow_learning_rate,
    follow_settings,
    settings,
)
from llmf_hydra.optimizers.common.gradients import keep_in_place
from llmf_hydra.optimizers.common.stepping import Layerwise, PerWeightOptimizer
from llmf_hydra.runs import checkpoints, ranks, seal, trained_with
from llmf_hydra.training.callbacks import RestoreState, StopWhenAsked
from llmf_hydra.training.context import RunContext
from llmf_hydra.training.health import HealthCheck
from llmf_hydra.training.saving import save_whole
from llmf_hydra.training.state import CheckpointState

TRAINED = "default"  # PEFT's name of the adapter that is trained


class ResumableTrainer(Trainer):
    """What of a trainer has to do with saving and going on: the optimizer, checkpoints, the final model."""

    def __init__(
        self, context: RunContext, model: nn.Module | None, args: TrainingArguments, **own: Any
    ) -> None:
        """`model` is what is trained where it is more than the context's model; `own` is for the trainer beneath."""
        self.context = context
        self.health, self.checkpoint, self.stop = HealthCheck(context), CheckpointState(), StopWhenAsked()
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
            args=args,
            train_dataset=context.train,
            eval_dataset=context.eval,  # pyright: ignore[reportArgumentType]
            processing_class=context.tokenizer,
            callbacks=[RestoreState(self._begin), self.stop, *context.callbacks, *stopping],
            **own,
        )
        self.checkpoint.register("stop", self.stop)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The optimizer that the config names, over what is trained."""
        if self.optimizer is None:
            cfg, trained = self.context.cfg, cast("nn.Module", self.model if model is None else model)
            training = cfg.training
            rates = Rates(*loraplus.rates(trained, cfg.method))
            built = build_optimizer(trained, cfg.optimizer, training.learning_rate, training.seed, rates)
            self.optimizer, self._settings = built, settings(built)
            self._layerwise = built.layerwise if isinstance(built, PerWeightOptimizer) else None
            if (
                METHODS[cfg.method.name].adapters
                and self.args.device.type == "cpu"
                and ranks.world_size() == 1
            ):
                keep_in_place(weight for group in built.param_groups for weight in group["params"])
        return self.optimizer

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
            adapters.save(model, folder, TRAINED, state_dict)
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
