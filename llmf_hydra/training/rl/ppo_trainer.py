"""The trainer: Transformers' own loop over optimizer steps, fed by rollouts.

A step is an optimizer step, as in every stage: a buffer of `ppo_buffer_size` rollout batches is trained in
`ppo_epochs` x `ppo_buffer_size` steps. Optimizer, schedule, clipping, accumulation, callbacks, checkpoints
and the counting of steps are the trainer's.
"""

import time
from typing import Any, TypedDict, cast

import torch
from datasets import Dataset
from torch import nn
from torch.utils.data import DataLoader
from transformers.trainer_utils import EvalLoopOutput

from llmf_hydra.models.architecture.apply import save_changed_config
from llmf_hydra.models.value_head import PolicyWithValue
from llmf_hydra.training.context import RunContext
from llmf_hydra.training.layout.rows import rows_apart
from llmf_hydra.training.rl import losses
from llmf_hydra.training.rl.buffer import Buffer
from llmf_hydra.training.rl.collector import Collector
from llmf_hydra.training.rl.experience import Tensors
from llmf_hydra.training.rl.older_state import older_state
from llmf_hydra.training.rl.passes import Spans, forward_pass
from llmf_hydra.training.rl.plan import Plan
from llmf_hydra.training.rl.samples import Samples
from llmf_hydra.training.rl.source import RolloutSource
from llmf_hydra.training.trainer import StageTrainer


def as_is(batch: object) -> object:
    """A collator of what is a batch already."""
    return batch


class PpoBatch(TypedDict):
    """Rows of a buffer: ids and attention are (rows, length), the others (rows, answer)."""

    ids: torch.Tensor
    attention: torch.Tensor
    spans: Spans
    mask: torch.Tensor
    log_probs: torch.Tensor
    values: torch.Tensor
    advantages: torch.Tensor
    returns: torch.Tensor


class PpoTrainer(StageTrainer[PpoBatch]):
    """Proximal policy optimization (Schulman et al. 2017, arXiv:1707.06347) of a language model."""

    model: PolicyWithValue

    def __init__(
        self, context: RunContext, model: PolicyWithValue, collector: Collector, plan: Plan, samples: Samples
    ):
        super().__init__(context, as_is, collector.judge.reference.layout, model)
        self.collector, self.plan, self.samples = collector, plan, samples
        device = self.args.device
        self.source = RolloutSource(plan, self._collect, lambda: self.state.global_step, device)
        self.checkpoint.older = older_state
        self.checkpoint.register("rollouts", self.source, required=True)
        self.checkpoint.register("advantages", collector.estimator, required=True)
        self._fresh: Tensors = {}  # metrics of a buffer that isn't logged yet
        collector.use(self.accelerator.autocast)
        collector.estimator.total = self._total
        collector.judge.reference.place(self.accelerator)

    def get_train_dataloader(self) -> DataLoader:
        return DataLoader(self.source, batch_size=None, collate_fn=as_is)

    def loss_terms(self, batch: PpoBatch) -> torch.Tensor:
        return torch.tensor(sum(batch["spans"].answers))

    def unreduced_loss(self, model: nn.Module, batch: PpoBatch) -> torch.Tensor:
        """Clipped policy loss and, weighted, clipped value loss of each token."""
        width, temperature = batch["mask"].shape[1], self.collector.judge.temperature
        given = forward_pass(batch["ids"], batch["attention"], batch["spans"], width, self.layout)
        with rows_apart(given.inputs, given.lengths):
            logits, values = model(given.inputs, given.predicts)
        at = [torch.arange(row * width, row * width + n) for row, n in enumerate(batch["spans"].answers)]
        answers = torch.cat(at).to(logits.device, non_blocking=True)
        old, expected, advantages, returns = (
            batch[name].flatten()[answers] for name in ("log_probs", "values", "advantages", "returns")
        )
        new = losses.log_probs(logits, given.tokens, temperature)
        policy, clipped = losses.policy_losses(new, old, advantages)
        value, near = losses.value_losses(values, expected, returns)
        with torch.no_grad():
            self.note(**{name.replace("/", "__"): of_rows for name, of_rows in self._fresh.items()})
            self._fresh = {}
            self.note(
                loss__policy_avg=policy,
                loss__value_avg=value,
                policy__clipfrac_avg=clipped.float(),
                policy__approxkl_avg=0.5 * (new - old) ** 2,
                policy__entropy_avg=losses.entropies(logits.detach(), temperature),
                val__clipfrac_avg=near.float(),
                val__ratio=torch.exp(new - old),
            )
        return policy + losses.VALUE_WEIGHT * value

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """The prompts of a dataset, or of the one of that name, as far as they are this process's."""
        return DataLoader(
            cast("Any", self.share(eval_dataset)), batch_size=self.args.eval_batch_size, collate_fn=as_is
        )

    def evaluation_loop(
        self, dataloader: DataLoader, *_: object, metric_key_prefix: str = "eval", **__: object
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
        data = cast("Dataset", self.train_dataset)
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

    def _restore(self) -> None:
        super()._restore()
        if self.is_world_process_zero():
            self.samples.drop_from(self.state.global_step)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        if not self.args.should_save:
            return
        folder = output_dir or str(self.args.output_dir)
        self.model.save_pretrained(folder)
        save_changed_config(self.context.model, folder, self.context.cfg.model)
        self.processing_class.save_pretrained(folder)  # pyright: ignore

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, self.model.policy)  # pyright: ignore
        self.model.load_value_head(resume_from_checkpoint)

    def _load_best_model(self) -> None:
        self._load_from_checkpoint(str(self.state.best_model_checkpoint))
