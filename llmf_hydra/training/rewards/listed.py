"""The rewards of the list `rlhf.rewards`, made from their descriptions."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from llmf_hydra.config.rewards.items import KEY, RewardSpec
from llmf_hydra.errors import Problem, Refused
from llmf_hydra.models.load import load_model
from llmf_hydra.training.context import RunContext
from llmf_hydra.training.generation import Rollouts
from llmf_hydra.training.rewards import schemas, verifiers
from llmf_hydra.training.rewards.adapter import AdapterReward
from llmf_hydra.training.rewards.columns import Need, check_columns
from llmf_hydra.training.rewards.function import Function
from llmf_hydra.training.rewards.model import ModelReward
from llmf_hydra.training.rewards.protocol import Reward, Row
from llmf_hydra.training.rewards.scoring import Answers, ListedReward, Scorer
from llmf_hydra.training.rewards.service import ServiceReward
from llmf_hydra.training.rewards.texts import texts


def listed_rewards(context: RunContext) -> list[ListedReward]:
    """The rewards of a run. Raises Refused where the rows lack a column that one needs."""
    found = context.cfg.rlhf.listed
    functions = {spec.label: Function.load(spec.argument) for spec in found if spec.kind == "python"}
    check_columns(context, scorer(context), [
        *(Need(spec.label, spec.column) for spec in found if spec.compares),
        *(Need(label, column, of_every_row=False) for label, of in functions.items() for column in of.needed),
    ])  # fmt: skip
    return [_of_function(spec, functions[spec.label]) if spec.kind == "python" else _listed(spec, context)
            for spec in found]  # fmt: skip


def scorer(context: RunContext) -> Scorer:
    """What calls them."""
    return Scorer(context.sources, context.cfg.rlhf.reward_timeout, str(context.out))


class WeightedRewards:
    """The list as one reward, for PPO: the sum of the scores by their weights, of those that apply to a row."""

    name = KEY

    def __init__(self, context: RunContext) -> None:
        self._rewards, self._scorer = listed_rewards(context), scorer(context)
        self._tokenizer, self._skip = context.tokenizer, context.cfg.generation.skip_special_tokens

    def __call__(self, rollouts: Rollouts, rows: Sequence[Row]) -> torch.Tensor:
        """Raises TrainingFailed for what is no score, and for a row to which no reward applies."""
        prompts, said = texts(rollouts, self._tokenizer, self._skip)
        answers = Answers(prompts, said, rows, rollouts)
        scored = [(reward.weight, self._scorer(reward, answers)) for reward in self._rewards]
        sums: list[float] = []
        for at, row in enumerate(rows):
            applied = [weight * score for weight, scores in scored if (score := scores[at]) is not None]
            if not applied:
                raise self._scorer.unscored(row)
            sums.append(sum(applied))
        return torch.tensor(sums, dtype=torch.float32, device=rollouts.ids.device)


def _of_function(spec: RewardSpec, function: Function) -> ListedReward:
    def score(answers: Answers) -> Any:
        return function(answers.prompts, answers.texts, answers.columns)

    return ListedReward(spec.label, spec.weight, score, alone=True)


def _listed(spec: RewardSpec, context: RunContext) -> ListedReward:
    if spec.kind in ("model", "service"):
        reward = _reward(spec, context)
        return ListedReward(
            spec.label, spec.weight, lambda answers: reward(answers.rollouts, answers.rows).tolist()
        )
    if spec.kind == "length":
        most, buffer = int(spec.options["max"]), int(spec.options["buffer"])
        return ListedReward(
            spec.label,
            spec.weight,
            lambda answers: [
                verifiers.length(int(n), most, buffer) for n in answers.rollouts.mask.sum(dim=1)
            ],
        )
    verify = _comparison(spec) if spec.compares else _inspection(spec)
    return ListedReward(spec.label, spec.weight, verify, alone=True)


def _comparison(spec: RewardSpec) -> Callable[[Answers], list[float]]:
    """A verifier that reads the reference answer."""
    options = spec.options
    pattern = re.compile(options["extract"], re.DOTALL) if options.get("extract") else None
    known: dict[str, verifiers.Verifier] = {
        "exact_match": lambda text, wanted: verifiers.exact_match(
            text, wanted, ignore_case=options["ignore_case"]
        ),
        "numeric": lambda text, wanted: verifiers.numeric(text, wanted, tolerance=options["tolerance"]),
        "math": verifiers.math,
    }
    verify = known[spec.kind]

    def score(answers: Answers) -> list[float]:
        wanted = [str(columns[spec.column]) for columns in answers.columns]
        said = [verifiers.extracted(text, pattern) for text in answers.texts]
        return [verify(text, reference) for text, reference in zip(said, wanted, strict=True)]

    return score


def _inspection(spec: RewardSpec) -> Callable[[Answers], list[float]]:
    """A verifier of the answer alone."""
    if spec.kind == "json_schema":
        validator = schemas.validator(spec.argument)
        return lambda answers: [verifiers.json_schema(text, validator) for text in answers.texts]
    tags = [tag.strip() for tag in str(spec.options.get("tags")).split(",")]
    pattern = re.compile(spec.argument) if spec.kind == "regex" else verifiers.tag_pattern(tags)
    return lambda answers: [verifiers.regex(text, pattern) for text in answers.texts]


def _reward(spec: RewardSpec, context: RunContext) -> Reward:
    cfg = context.cfg
    if spec.kind == "service":
        named = f"{KEY}=service:{spec.argument}"
        return ServiceReward(spec.argument, context.tokenizer, cfg.generation.skip_special_tokens, name=named)
    folder, weights = Path(spec.argument).expanduser(), context.precision.weights
    try:
        if not (folder / "adapter_config.json").exists():
            return ModelReward.named(cfg, spec.argument, weights, context.tokenizer)
        host = context.model if isinstance(context.model, PeftModel) else load_model(cfg.network, weights)
        return AdapterReward(host, str(folder), context.pad_id)
    except Refused as refused:  # which PPO's own parameter would be named in
        found = [replace(p, key=f"{KEY} (model)") if isinstance(p, Problem) else p for p in refused.problems]
        raise Refused(found) from refused.__cause__
