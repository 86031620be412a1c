"""TRL's trainers of groups of answers, with our rows, rewards, reference, checkpoints and metrics."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, cast

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from peft import PeftModel
from torch import nn
from torch.utils.data import Sampler
from transformers import TrainingArguments
from trl.trainer.utils import add_fused_lm_head

from llmf_hydra.errors import NO_VALUE, Problem, Refused
from llmf_hydra.tracking.contract import Table
from llmf_hydra.training.batches import ROWS
from llmf_hydra.training.context import RunContext
from llmf_hydra.training.generation import sampling, seeded
from llmf_hydra.training.parallelism import check_wrapper
from llmf_hydra.training.reference.model import build_reference
from llmf_hydra.training.rewards.listed import listed_rewards, scorer
from llmf_hydra.training.rewards.scoring import Answers, Score
from llmf_hydra.training.rl.groups.answers import moved, rollouts
from llmf_hydra.training.rl.groups.held_out import HeldOut
from llmf_hydra.training.rl.groups.order import EpochOrder
from llmf_hydra.training.rl.groups.state import Generations
from llmf_hydra.training.rl.groups.table import REWARD, CompletionTable
from llmf_hydra.training.trainer import SteppingTrainer

TIMES = ("step_time",)  # what TRL logs of the clock: a line of a resumed run would differ by it


class GroupTrainer(SteppingTrainer):
    """The seams. A stage's class has it before TRL's GRPOTrainer or RLOOTrainer among its bases."""

    args: Any  # GRPOConfig or RLOOConfig
    ref_model: nn.Module | None
    generation_config: Any
    generation_kwargs: dict[str, Any]

    def __init__(self, context: RunContext, args: TrainingArguments) -> None:
        rlhf = context.cfg.rlhf
        self.scorer, self.table = scorer(context), CompletionTable(context.out)
        self.held_out = HeldOut(rlhf.answers_per_prompt, rlhf.pass_reward)
        self._asked: Sequence[Mapping[str, Any]] = []  # the rows whose answers are generated
        self._answers: Answers | None = None
        self._scores = torch.zeros(0, 0)
        reference = build_reference(context) if rlhf.beta else None
        self._rewards = listed_rewards(context)
        self._found: dict[
            str, list[Score]
        ] = {}  # of the answers that are being scored, by the rewards' labels
        named = [self._named(reward.label) for reward in self._rewards]
        super().__init__(context, None, args, reward_funcs=named)
        self.beta, self.generations = rlhf.beta, Generations(self)
        if reference is not None and reference.own is not None:
            own = reference.own
            add_fused_lm_head(own.get_base_model() if isinstance(own, PeftModel) else own, self.temperature)  # pyright: ignore
            reference.place(self.accelerator)
            self.ref_model = reference.own.eval()
        self._end_answers(context)
        self._check_prompts()
        self.checkpoint.register("generations", self.generations, required=True)

    def _named(self, label: str) -> Callable[..., list[Score]]:
        """A reward as TRL calls it, by whose name it logs."""

        def score(**_: object) -> list[Score]:
            return self._found[label]

        score.__name__ = label
        return score

    def _end_answers(self, context: RunContext) -> None:
        """Have answers end where the template ends a turn, too."""
        known = sampling(context.cfg.generation, context.model, context.tokenizer, context.stops)
        if known.stop_texts is not None:
            what = f"ends a turn with {', '.join(known.stop_texts.texts)}, which is several tokens of this tokenizer"
            remedy = "add it to the tokenizer's special tokens, or choose a template that fits"
            raise Refused([Problem("data.template", context.cfg.data.template, what, remedy)])
        self.eos_token_ids = list(known.ends)
        if not self.args.use_vllm:
            self.generation_config.eos_token_id = self.generation_kwargs["eos_token_id"] = self.eos_token_ids

    def _check_prompts(self) -> None:
        """Raise Refused where the prompts don't fill one generation: no epoch would have a step."""
        needed = self.args.generation_batch_size // self.args.num_generations
        held = len(cast("Dataset", self.train_dataset))
        if held < needed:
            what = f"holds {held} prompts, and {needed} are answered at once"
            remedy = "lower training.per_device_train_batch_size or training.gradient_accumulation_steps"
            raise Refused([Problem("data.dataset", NO_VALUE, what, remedy)])

    # Rows, answers and rewards

    def _get_train_sampler(  # pyright: ignore[reportIncompatibleMethodOverride]  # named as TRL has it
        self, dataset: Any = None
    ) -> Sampler[int]:
        args = self.args
        return EpochOrder(
            lambda: int(self.state.epoch or 0),
            args.seed if args.data_seed is None else args.data_seed,
            data_source=self.train_dataset if dataset is None else dataset,
            mini_repeat_count=args.num_generations,
            batch_size=args.generation_batch_size // args.num_generations,
            repeat_count=args.num_iterations * args.steps_per_generation,
            shuffle=args.shuffle_dataset,
        )

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        """The token ids that the rows hold."""
        return [list(row["prompt_ids"]) for row in self._asked], None, {}

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self._asked = inputs
        decode = self.context.tokenizer.decode
        named = [{**row, "prompt": decode(row["prompt_ids"], skip_special_tokens=False)} for row in inputs]
        output: dict[str, Any] = super()._generate_and_score_completions(named)  # pyright: ignore
        output[ROWS] = torch.tensor([[row["source"], row["row"]] for row in inputs])
        if cast("nn.Module", self.model).training:
            self._write(output["advantages"])
        return output

    def _calculate_rewards(
        self, inputs: Any, prompts: list[str], completions: list[str], completion_ids_list: list[list[int]]
    ) -> torch.Tensor:
        """The scores of all processes' answers, (answers, rewards). Raises TrainingFailed for what is no score."""
        tokenizer, skip = self.context.tokenizer, self.context.cfg.generation.skip_special_tokens
        if not skip:
            completions = [
                str(tokenizer.decode(ids, skip_special_tokens=False)) for ids in completion_ids_list
            ]
        asked = [row["prompt_ids"] for row in self._asked]
        tokens = rollouts(asked, completion_ids_list, self.eos_token_ids, self.context.pad_id)
        self._answers = Answers(prompts, completions, self._asked, moved(tokens, self.args.device))
        with self.accelerator.autocast():
            self._found = {reward.label: self.scorer(reward, self._answers) for reward in self._rewards}
        for row, *of_row in zip(self._asked, *self._found.values(), strict=True):
            if all(score is None for score in of_row):  # of which TRL would warn at length
                raise self.scorer.unscored(row)
        scores: torch.Tensor = super()._calculate_rewards(  # pyright: ignore
            inputs, prompts, completions, completion_ids_list
        )
        self._scores = scores[self.args.process_index * len(prompts) :][: len(prompts)]
        if not cast("nn.Module", self.model).training:
            self.held_out.rewards += (scores * self.reward_weights.to(scores.device)).nansum(dim=1).tolist()  # pyright: ignore
        return scores

    def _write(self, advantages: torch.Tensor) -> None:
        """Add the answers of all processes to the table."""
        answers = cast("Answers", self._answers)
        of_funcs = {f"{REWARD}{name}": column for name, column in
                    zip(self.reward_func_names, self._scores.T.tolist(), strict=True)}  # pyright: ignore  # fmt: skip
        total = (self._scores * self.reward_weights.to(self._scores.device)).nansum(dim=1)  # pyright: ignore
        columns = {
            "dataset": [self.scorer.source(row) for row in answers.rows],
            "row": [int(row["row"]) for row in answers.rows],
            "prompt": answers.prompts,
            "completion": answers.texts,
            "tokens": answers.rollouts.mask.sum(dim=1).tolist(),
            "ended": answers.rollouts.ended.tolist(),
            **{
                name: [None if math.isnan(value) else value for value in column]
                for name, column in of_funcs.items()
            },
            "reward": total.tolist(),
            "advantage": advantages.tolist(),
        }
        whole = {name: gather_object(list(column)) for name, column in columns.items()}
        if self.is_world_process_zero():
            self.table.write(self.state.global_step, whole)

    def newest_table(self) -> Table | None:
        """The answers of the last generation, for the trackers."""
        return self.table.newest()

    # Steps

    def training_step(
        self, model: nn.Module, inputs: Any, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        check_wrapper(self.context.cfg.launch, model)
        loss = super().training_step(model, inputs, num_items_in_batch)
        self.health.add(loss, self.rows)
        return loss

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        self.rows = [(int(source), int(row)) for source, row in inputs[ROWS].tolist()]
        if model.training:
            self.tokens += int(inputs["prompt_mask"].sum() + inputs["completion_mask"].sum())
        loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        return cast("torch.Tensor", loss)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """TRL's means, without those of the clock and of nothing; an evaluation's rewards are exact."""
        training = cast("nn.Module", self.model).training
        metrics: dict[str, list[float]] = self._metrics["train" if training else "eval"]  # pyright: ignore
        for name in [
            name for name, values in metrics.items() if name in TIMES or all(map(math.isnan, values))
        ]:
            del metrics[name]
        if not training:
            metrics |= {name: [value] for name, value in self.held_out.take().items()}
        super().log(logs, start_time)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Answer held-out prompts with the same random numbers each time, apart from those of the training."""
        with self._apart():
            return super().evaluate(*args, **kwargs)

    def _apart(self) -> AbstractContextManager[None]:
        return seeded(self.args.seed + self.args.process_index, self.args.device)

    # Checkpoints

    def _restore(self) -> None:
        super()._restore()
        if self.is_world_process_zero():
            self.table.drop_from(self.state.global_step)

    def create_model_card(self, *_: object, **__: object) -> None:
        """Nothing: a run's card is written beside its final model."""

    def _send_telemetry(self) -> None:
        """Nothing: no run tells anyone of itself."""
