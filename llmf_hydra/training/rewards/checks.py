"""What rewards need of their files. Looked at before anything loads, without torch."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from llmf_hydra import optional
from llmf_hydra.checks.register import DISK, rule
from llmf_hydra.checks.scorer import adapter_scores, model_scores
from llmf_hydra.config.choices import LEARNING_JOBS
from llmf_hydra.config.rewards import items as rewards
from llmf_hydra.config.rewards.items import RewardSpec
from llmf_hydra.config.schema import Config
from llmf_hydra.errors import NO_VALUE, Problem
from llmf_hydra.models.adapter_files import read
from llmf_hydra.models.identity import same_model
from llmf_hydra.training.rewards import function, schemas

KEY = "rlhf.reward_model"


@rule(
    KEY,
    "rlhf.reward_model_type",
    "rlhf.reward_model_adapters",
    "rlhf.reward_model_quantization_bit",
    jobs=LEARNING_JOBS,
    phase=DISK,
)
def the_reward_is_what_its_type_needs(cfg: Config) -> Iterator[Problem]:
    """rlhf.reward_model is an adapter (lora) or a model (full) with a head that scores; bits need bitsandbytes."""
    rlhf = cfg.rlhf
    if cfg.stage.name != "ppo" or rlhf.reward_model is None or rlhf.reward_model_type == "api":
        return
    if rlhf.reward_model_quantization_bit is not None:
        package = optional.missing("bitsandbytes", extra="bnb", key="rlhf.reward_model_quantization_bit")
        yield from [package] if package is not None else []
    folder = Path(rlhf.reward_model).expanduser()
    if folder.is_dir():
        yield from _adapter(cfg, folder) if rlhf.reward_model_type == "lora" else _model(cfg, folder)
    elif rlhf.reward_model.startswith((".", "/", "~")):
        yield Problem(KEY, rlhf.reward_model, "there is no such folder")


@rule(rewards.KEY, jobs=LEARNING_JOBS, phase=DISK)
def listed_rewards_have_their_files(cfg: Config) -> Iterator[Problem]:
    """The function, the schema, or the saved model of each item of rlhf.rewards is there."""
    if cfg.stage.info.rollouts and not list(rewards.problems(cfg.rlhf.rewards)):
        for spec in cfg.rlhf.listed:
            yield from _of_listed(cfg, spec)


def _of_listed(cfg: Config, spec: RewardSpec) -> Iterator[Problem]:
    if spec.kind == "python" and (wrong := function.problem(spec.argument)):
        yield wrong
    elif spec.kind == "json_schema":
        if wrong := schemas.problem(spec.argument):
            yield wrong
    elif spec.kind == "model":
        folder = Path(spec.argument).expanduser()
        named = replace(cfg, rlhf=replace(cfg.rlhf, reward_model=spec.argument, reward_model_adapters=None))
        if not folder.is_dir():
            found = [Problem(KEY, spec.argument, "there is no such folder")]
        elif (folder / "adapter_config.json").exists():
            found = [*_adapter(named, folder), *_on_other_weights(cfg, spec)]
        else:
            found = list(_model(named, folder))
        yield from (replace(problem, key=f"{rewards.KEY} (model)") for problem in found)


def _on_other_weights(cfg: Config, spec: RewardSpec) -> Iterator[Problem]:
    """An adapter gives its scores on the model's own weights."""
    if cfg.merged_adapters or cfg.starts_on_residual:
        what = "is an adapter on the model's own weights, which this run changes before it trains"
        yield Problem(KEY, spec.argument, what, "merge the adapter into a model, and name that")


def _adapter(cfg: Config, folder: Path) -> Iterator[Problem]:
    known, model = read(folder / "adapter_config.json"), str(cfg.model.model_name_or_path)
    if known is None:
        whole = (folder / "config.json").exists()
        remedy = (
            "set rlhf.reward_model_type=full"
            if whole
            else "name a folder that stage=rm method=lora has written"
        )
        yield Problem(KEY, cfg.rlhf.reward_model, "the folder holds no adapter_config.json", remedy)
        return
    base = str(known.get("base_model_name_or_path"))
    if not same_model(base, model):
        yield Problem(
            KEY,
            cfg.rlhf.reward_model,
            f"is an adapter of {base}, and model.model_name_or_path={model} is another model",
            "train the reward on this model, or merge it into its own and set rlhf.reward_model_type=full",
        )
    if not adapter_scores(known):
        task = known.get("task_type")
        yield Problem(
            KEY,
            cfg.rlhf.reward_model,
            f"is an adapter for {task}, not for scores (SEQ_CLS)",
            "name a folder that stage=rm method=lora has written",
        )


def _model(cfg: Config, folder: Path) -> Iterator[Problem]:
    known = read(folder / "config.json")
    if known is None:
        adapter = (folder / "adapter_config.json").exists()
        remedy = "set rlhf.reward_model_type=lora" if adapter else "name a folder that save_pretrained wrote"
        yield Problem(KEY, cfg.rlhf.reward_model, "the folder holds no config.json", remedy)
    elif not cfg.rlhf.reward_model_adapters and not model_scores(known):
        kind = ", ".join(known.get("architectures") or ["model"])
        yield Problem(
            KEY,
            cfg.rlhf.reward_model,
            f"is a {kind}, which gives no score",
            "name a model that stage=rm has written",
        )
    for name in (cfg.rlhf.reward_model_adapters or "").split(","):
        if (
            name.strip().startswith((".", "/", "~"))
            and read(Path(name.strip()).expanduser() / "adapter_config.json") is None
        ):
            yield Problem(
                "rlhf.reward_model_adapters", NO_VALUE, f"{name.strip()} holds no adapter_config.json"
            )
