"""The trainer: Transformers' own loop over optimizer steps, fed by rollouts.

A step is an optimizer step, as in every stage: a buffer of `ppo_buffer_size` rollout batches is trained in
`ppo_epochs` x `ppo_buffer_size` steps. Optimizer, schedule, clipping, accumulation, callbacks, checkpoints
and the counting of steps are the trainer's.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers.trainer_utils import EvalLoopOutput

from llmf_hydra.models.value_head import PolicyWithValue
from llmf_hydra.training.rl import losses
from llmf_hydra.training.rl.buffer import Buffer
from llmf_hydra.training.rl.collector import Collector
from llmf_hydra.training.rl.experience import Tensors
from llmf_hydra.training.rl.plan import Plan
from llmf_hydra.training.rl.samples import Samples
from llmf_hydra.training.rl.source import RolloutSource
from llmf_hydra.training.state import CheckpointState
from llmf_hydra.training.trainer import Watched


def as_is(batch: Any) -> Any:
    """A collator of what is a batch already."""
    return batch


class PpoTrainer(Watched):
    """Proximal policy optimization (Schulman et al. 2017, arXiv:1707.06347) of a language model."""

    model: PolicyWithValue

    def __init__(self, *args: Any, collector: Collector, plan: Plan, samples: Samples, **kwargs: Any):
        super().__init__(*args, data_collator=as_is, **kwargs)
        self.collector, self.plan, self.samples = collector, plan, samples
        device = self.args.device
        self.source = RolloutSource(plan, self._collect, lambda: self.state.global_step, device)
        self.checkpoint_state = CheckpointState()
        self.checkpoint_state.register("rollouts", self.source, required=True)
        self.checkpoint_state.register("advantages", collector.estimator, required=True)
        self._fresh: Tensors = {}  # metrics of a buffer that isn't logged yet
        collector.use(self.accelerator.autocast)
        collector.estimator.total = self._total
        collector.judge.reference.place(self.accelerator)

    def get_train_dataloader(self) -> DataLoader:
        return DataLoader(self.source, batch_size=None, collate_fn=as_is)

    def weight(self, batch: Mapping[str, Any]) -> torch.Tensor:
        return batch["mask"].sum()

    def losses_of(self, model: nn.Module, inputs: dict[str, Any]) -> torch.Tensor:
        """Clipped policy loss and, weighted, clipped value loss of each token."""
        mask, temperature = inputs["mask"], self.collector.judge.temperature
        logits, values = model(inputs["ids"], inputs["attention"], mask.shape[1])
        answers = inputs["ids"][:, -mask.shape[1] :]
        new, old = losses.log_probs(logits, answers, temperature)[mask], inputs["log_probs"][mask]
        policy, clipped = losses.policy_losses(new, old, inputs["advantages"][mask])
        value, near = losses.value_losses(values[mask], inputs["values"][mask], inputs["returns"][mask])
        with torch.no_grad():
            self.note(**{name.replace("/", "__"): of_rows for name, of_rows in self._fresh.items()})
            self._fresh = {}
            self.note(
                loss__policy_avg=policy,
                loss__value_avg=value,
                policy__clipfrac_avg=clipped.float(),
                policy__approxkl_avg=0.5 * (new - old) ** 2,
                policy__entropy_avg=losses.entropies(logits.detach(), temperature)[mask],
                val__clipfrac_avg=near.float(),
                val__ratio=torch.exp(new - old),
            )
        return policy + losses.VALUE_WEIGHT * value

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """The prompts of a dataset, or of the one of that name, as far as they are this process's."""
        return DataLoader(self.share(eval_dataset), batch_size=self.args.eval_batch_size, collate_fn=as_is)

    def evaluation_loop(
        self, dataloader: DataLoader, *_: Any, metric_key_prefix: str = "eval", **__: Any
    ) -> EvalLoopOutput:
        """Answers to prompts held out. The loss is minus what PPO maximizes: the score less the penalty."""
        sums: dict[str, torch.Tensor] = {}
        count = 0
        for number, rows in enumerate(dataloader):
            answers = self.collector.experience(rows, self.plan.seed_of("evaluation", number))
            penalty = self.collector.estimator.kl.coefficient * answers.kl
            seen = {
                "loss": penalty - answers.scores,
                "objective/scores": answers.scores,
                "objective/kl": answers.kl,
                "objective/rlhf_reward": answers.scores - penalty,
                "objective/response_length": answers.lengths.float(),
            }
            sums = {name: sums.get(name, 0) + values.double().sum() for name, values in seen.items()}
            count += len(rows)
        whole = float(self._total(torch.tensor(float(count), device=self.args.device)))
        metrics = {
            f"{metric_key_prefix}_{name}": float(self._total(total)) / whole for name, total in sums.items()
        }
        return EvalLoopOutput(predictions=(), label_ids=None, metrics=metrics, num_samples=int(whole))  # pyright: ignore

    def _collect(self, number: int) -> Buffer:
        begun = time.monotonic()
        data: Any = self.train_dataset
        rows = [[data[row] for row in batch] for batch in self.plan.rollouts(number)]
        seeds = [self.plan.seed_of("rollout", number, batch) for batch in range(len(rows))]
        buffer, self._fresh, answers = self.collector.buffer(rows, seeds)
        seconds = time.monotonic() - begun
        self._fresh["rollout/tokens_per_second"] = answers.lengths.sum().float().reshape(1) / seconds
        if self.is_world_process_zero():
            self.samples.write(self.state.global_step, answers)
        return buffer

    def _total(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over all processes."""
        return self.accelerator.reduce(tensor)  # pyright: ignore

    # Checkpoints. The state lies there before `trainer_state.json`, with which a checkpoint is finished.

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        self.checkpoint_state.save(Path(output_dir), self.args.process_index)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            self.checkpoint_state.load(Path(checkpoint), self.args.process_index)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        if not self.args.should_save:
            return
        folder = output_dir or str(self.args.output_dir)
        self.model.save_pretrained(folder)
        self.processing_class.save_pretrained(folder)  # pyright: ignore

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, self.model.policy)  # pyright: ignore
        self.model.load_value_head(resume_from_checkpoint)

    def _load_best_model(self) -> None:
        self._load_from_checkpoint(str(self.state.best_model_checkpoint))
