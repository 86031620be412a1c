"""Words that a command line implies: what a finished run stands for, the demo where no dataset is named, and shipped
values that give way.

All follow from the composed config and become overrides of their own, so that `--cfg`, the run and each trial of a
sweep show them.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from omegaconf import DictConfig

from llmf_hydra import paths
from llmf_hydra.config import from_run
from llmf_hydra.config.choices import INFERENCE_JOBS, JOBS
from llmf_hydra.config.conf_files import DEMO, file_of, flat_values, shipped_values
from llmf_hydra.config.schema import GROUPS, entries
from llmf_hydra.errors import Problem, Refused, shown

MODEL, VAL_SIZE = "model.model_name_or_path", "data.val_size"
# Parameters that contradict each other: what the user sets replaces what a shipped file says of the other.
EXCLUSIVE = (
    ("training.warmup_steps", "training.warmup_ratio"),
    ("training.pure_bf16", "model.compute_dtype"),
    ("training.bf16", "model.compute_dtype"),
    ("data.eval_dataset", VAL_SIZE),
    ("training.activation_memory", "model.disable_gradient_checkpointing"),
)
HELD_OUT = 5  # of so many rows one is held out, where a shipped file would hold out all that the user keeps
ROUNDS = 3  # the demo brings shipped values that may have to give way

Compose = Callable[[list[str]], DictConfig]  # from overrides to what Hydra composes, with its own part
Override = Callable[
    [DictConfig, list[str]], None
]  # sets overrides of values in what is composed, as its last ones


def settled(
    words: list[str], compose: Compose, override: Override, composed: DictConfig | None = None
) -> tuple[list[str], DictConfig]:
    """The overrides with those that they imply at their end, and what is composed from them all. Raises Refused.

    `composed` is what the overrides alone are composed to, where that is known. Choices are composed anew; values
    alone are set in what is composed: the same, in a tenth of the time.
    """
    composed = compose(words) if composed is None else composed
    said = _said(words)
    more = _of_a_run(composed, said)
    if more:
        words = [*words, *more]
        composed = compose(words)
    for _ in range(ROUNDS):
        choices = composed.hydra.runtime.choices
        shipped = shipped_values(choices)
        said = _said(words)
        _check_choices(composed, choices, said)
        gives_way = {key: value for key, value in shipped.items() if key not in said or key == MODEL}
        more = [
            *_demo(composed, choices),
            *_other_model(composed, gives_way, said),
            *_giving_way(composed, gives_way),
            *_fewer_held_out(composed, gives_way),
        ]
        if not more:
            break
        words = [*words, *more]
        if all("." in word.partition("=")[0] for word in more):
            override(composed, more)
        else:
            composed = compose(words)
    return words, composed


def _said(words: list[str]) -> set[str]:
    """The keys and groups of overrides."""
    return {word.lstrip("+").partition("=")[0] for word in words}


def _of_a_run(composed: DictConfig, said: set[str]) -> list[str]:
    """What `from_run` stands for, where the user has not set it himself."""
    run = composed.job.from_run
    if run is None or composed.job.name not in INFERENCE_JOBS:
        return []
    shipped = shipped_values(composed.hydra.runtime.choices)
    users = {
        key for key in entries() if key.split(".")[0] in from_run.GROUPS and _is_users(composed, key, shipped)
    }
    return from_run.words(run, said | users)


def _check_choices(composed: DictConfig, choices: Mapping[str, object], said: set[str]) -> None:
    """Raise Refused for a choice that was said and loses, in silence, to what another group's choice sets in its group,
    such as quantization=none beside method=qlora."""
    chosen = {group: str(choices[group]) for group in GROUPS if isinstance(choices.get(group), str)}
    for other, choice in chosen.items():
        file = file_of(other, choice)
        brought = flat_values(file, other) if _sets_other_groups(file) else {}
        for key, value in brought.items():
            group = key.partition(".")[0]
            if group == other or group not in said or group not in chosen or key in said:
                continue
            own = file_of(group, chosen[group])
            wanted = (flat_values(own, group) if own.exists() else {}).get(key, entries()[key].param.default)
            if value != wanted and _value(composed, key) == value:
                what = f"sets {key}={shown(wanted)}, and {other}={choice} sets it to {shown(value)}"
                raise Refused(
                    [Problem(group, chosen[group], what, "choose another of the two, or leave it out")]
                )


def _sets_other_groups(file: Path) -> bool:
    return file.exists() and file.read_text(encoding="utf8").startswith("# @package _global_")


def _demo(composed: DictConfig, choices: Mapping[str, object]) -> Iterator[str]:
    data, stage = composed.data, composed.stage.name
    named = data.dataset or data.tokenized_path or choices.get(DEMO)
    trains = composed.job.name in JOBS and JOBS[composed.job.name].trains
    if trains and not named and (paths.conf_dir() / DEMO / f"{stage}.yaml").exists():
        yield f"{DEMO}={stage}"


def _other_model(composed: DictConfig, shipped: Mapping[str, object], said: set[str]) -> Iterator[str]:
    """Another model than the default one: what that one's file says of it must not stay."""
    named = _value(composed, MODEL)
    if "model" not in said and MODEL in shipped and named not in (None, shipped[MODEL]):
        yield "model=path"


def _giving_way(composed: DictConfig, shipped: Mapping[str, object]) -> Iterator[str]:
    for pair in EXCLUSIVE:
        for given, other in (pair, pair[::-1]):
            if _is_users(composed, given, shipped) and _is_shipped(composed, other, shipped):
                default = entries()[other].param.default
                yield f"{other}={'null' if default is None else default}"


def _fewer_held_out(composed: DictConfig, shipped: Mapping[str, object]) -> Iterator[str]:
    """The demo's rows to evaluate on, where `data.max_samples` leaves no more than those."""
    rows = composed.data.max_samples
    if (
        _is_shipped(composed, VAL_SIZE, shipped)
        and rows is not None
        and 1 < rows <= _value(composed, VAL_SIZE)
    ):
        evaluates = composed.training.eval_strategy != "no"
        yield f"{VAL_SIZE}={max(1, rows // HELD_OUT) if evaluates else 0}"


def _is_users(composed: DictConfig, key: str, shipped: Mapping[str, object]) -> bool:
    default = entries()[key].param.default
    return _value(composed, key) not in (default, shipped.get(key, default))


def _is_shipped(composed: DictConfig, key: str, shipped: Mapping[str, object]) -> bool:
    return key in shipped and _value(composed, key) == shipped[key] != entries()[key].param.default


def _value(composed: DictConfig, key: str) -> object:
    group, name = key.split(".", 1)
    return composed[group][name]
