"""`llmf import FILE.yaml`: a flat LLaMA-Factory YAML becomes an experiment of ours.

Each key is carried, renamed, without meaning here, or missing; none is lost. Where one is missing that changes the
result, nothing is written unless `--partial` asks for the rest. The experiment is composed and checked before it is
written, so that the answer says what the run would refuse. The file is never written over another.
"""

import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from llmf_hydra import refusals
from llmf_hydra.cli import wording
from llmf_hydra.cli.commands import Parser
from llmf_hydra.cli.llamafactory.trainer_names import LAYERWISE, THEIR_DEFAULTS, UNCLIPPED
from llmf_hydra.cli.llamafactory.translate import FATES, IDLE, MISSING, Flat, Outcome, translate
from llmf_hydra.config import compose
from llmf_hydra.config.conf_files import shipped_values
from llmf_hydra.config.quoting import command_line, hydra_value, yaml_value
from llmf_hydra.config.schema import GROUPS, Config, Entry, entries, value_at
from llmf_hydra.errors import DONE, NO_VALUE, REFUSED, Problem, Refused

Settings = dict[str, Any]  # by full key, and choices by group
FITTING = {  # a value of theirs -> the choice of ours that goes with it
    "model.model_name_or_path": ("model", "path"),
    "data.dataset": ("data", "path"),
}
ACCELERATE = {"compute_environment", "distributed_type", "num_processes", "main_training_function"}
NESTED = {"peft_config", "quant_config", "dist_config", "kernel_config", "init_config"}
ROWS = {"train": ("dataset",), "predict": ("eval_dataset", "dataset")}  # job -> keys that name what it reads
OF_TRAINING = {"stage", "do_train", "learning_rate", "num_train_epochs", "max_steps"}


@dataclass(frozen=True)
class Imported:
    """A translated file: what became of each key, what is written, and what the run would refuse."""

    source: Path
    outcomes: list[Outcome]
    choices: Settings  # group -> choice
    values: Settings  # full key -> value
    added: Settings  # their defaults that differ from ours, by full key
    idle: dict[str, str]  # full key -> why its value has no effect in this run: written as comments
    refused: list[Problem]  # why the run would not start yet

    @property
    def overrides(self) -> list[str]:
        """The words of the command line that say the same."""
        return _words(self.choices, self.acting | self.added)

    @property
    def missing(self) -> list[Outcome]:
        """The keys without which the result is another one."""
        return [outcome for outcome in self.outcomes if outcome.fate == MISSING]

    @property
    def acting(self) -> Settings:
        """The values that have an effect in this run."""
        return {key: value for key, value in self.values.items() if key not in self.idle}


def main(argv: Sequence[str]) -> int:
    """Answer `llmf import FILE.yaml [--name NAME] [--to DIR] [--partial]`; Refused as `import_yaml` is."""
    parser = Parser("import")
    parser.add_argument("file", type=Path, help="the YAML to read")
    parser.add_argument("--name", help="name of the experiment; the file's own name if not given")
    parser.add_argument("--to", type=Path, default=Path("conf/experiment"), help="folder it is written to")
    parser.add_argument(
        "--partial", action="store_true", help="write it also where keys are missing that change the result"
    )
    args = parser.parse_args(argv)
    name = args.name or re.sub(r"[^\w-]+", "_", args.file.stem)
    if Path(name).name != name or name == "..":
        raise Refused([Problem("--name", name, "is a path, not a name", "--to names the folder")])
    imported, told = import_yaml(args.file, args.to / f"{name}.yaml", partial=args.partial)
    print(told)
    if not imported.missing or args.partial:
        return DONE
    keys = ", ".join(outcome.name for outcome in imported.missing)
    remedy = "take them out of the file, or write the rest with --partial"
    print(
        f"refused: nothing was written: the result would be another one without {keys}; {remedy}",
        file=sys.stderr,
    )
    return REFUSED


def import_yaml(path: Path, to: Path, *, partial: bool = False) -> tuple[Imported, str]:
    """Write the experiment and return it with the account of it; Refused if a value is invalid or `to` exists.

    Nothing is written where keys are missing that change the result, unless `partial` asks for the rest.
    """
    if to.exists():
        raise Refused([Problem(str(to), NO_VALUE, "is there already", "choose another name with --name")])
    imported = read(path)
    if imported.missing and not partial:
        return imported, account(imported, None)
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_text(experiment(imported), encoding="utf-8")
    except OSError as error:  # FileExistsError too, where the folder is a file
        reason = "it is a file" if to.parent.is_file() else error.strerror
        raise Refused(
            [Problem("--to", to.parent, f"cannot be written to: {reason}", "name a folder of yours")]
        ) from None
    return imported, account(imported, to)


def read(path: Path) -> Imported:
    """Translate a flat YAML, compose the result and check it; Refused with every invalid value."""
    flat = read_flat(path)
    return _settled(path, translated(path, flat), _job(path, flat))


def translated(path: Path, flat: Flat) -> list[Outcome]:
    """What becomes of each key of a flat YAML, in its order; Refused with every invalid value."""
    outcomes: list[Outcome] = []
    found: list[str] = []
    for name, raw in flat.items():
        try:
            outcomes.append(translate(name, raw, flat))
        except Refused as refused:
            found += [f"{name}: {problem}" for problem in refused.problems]
    found += _contradictions(outcomes)
    if found:
        raise Refused(found)
    return outcomes


def _job(path: Path, flat: Flat) -> str:
    """What the file is for. Refused for a file of another program, and for one that names no model or no rows."""
    if ACCELERATE & flat.keys():
        what = "is a config of accelerate and says nothing of a training"
        raise Refused(
            [Problem(str(path), NO_VALUE, what, "processes are started by launch.nproc_per_node=N")]
        )
    if NESTED & flat.keys():
        what = "is nested, as LLaMA-Factory's v1 has it, and only flat files are read"
        raise Refused([Problem(str(path), NO_VALUE, what, "write it as one of its flat examples")])
    named = {key: flat[key] for key in flat if flat[key] not in (None, False, "")}
    job = (
        "export" if "export_dir" in named
        else "evaluate" if "task" in named
        else "predict" if "do_predict" in named and "do_train" not in named
        else "train" if OF_TRAINING & named.keys() or "dataset" in named
        else "chat"
    )  # fmt: skip
    found = [] if "model_name_or_path" in named else [_nowhere("model_name_or_path", path, "no model")]
    if job in ROWS and not any(key in named for key in ROWS[job]):
        found.append(_nowhere(ROWS[job][0], path, f"no rows for job={job}"))
    if found:
        raise Refused(found)
    return job


def _nowhere(key: str, path: Path, what: str) -> Problem:
    return Problem(key, NO_VALUE, f"stands nowhere in {path}, which so names {what}", "add it to the file")


def _settled(path: Path, outcomes: list[Outcome], job: str) -> Imported:
    """Part choices from values, add what they leave unsaid, and ask our own check about the whole."""
    settings = {key: value for outcome in outcomes for key, value in outcome.settings.items()}
    if job != "train":
        settings["job"] = job
    choices = _choices(settings)
    values = {key: value for key, value in settings.items() if key not in GROUPS}
    theirs = THEIR_DEFAULTS | (UNCLIPPED if any(values.get(key) is True for key in LAYERWISE) else {})
    added = {key: value for key, value in theirs.items() if job == "train" and key not in values}
    cfg, _ = _compose(_words(choices, values | added))
    idle = _idle(cfg, values)
    problems = _problems(choices, values, added, idle)
    unread = {one.key: f"is not read by job={job}" for one in problems
              if one.key in values and one.what.startswith(f"has no effect with job={job}")}  # fmt: skip
    if unread:
        idle |= unread
        problems = _problems(choices, values, added, idle)
    return Imported(path, outcomes, choices, values, added, idle, problems)


def _problems(choices: Settings, values: Settings, added: Settings, idle: Mapping[str, str]) -> list[Problem]:
    """What our own check says of the run."""
    acting = {key: value for key, value in values.items() if key not in idle}
    cfg, shipped = _compose(_words(choices, acting | added))
    return refusals.problems(cfg, shipped, [refusals.CONFIG])


def _choices(settings: Settings) -> Settings:
    """The choices that are named, those that go with a value, and stage and method in any case; by group."""
    fitting = {group: choice for key, (group, choice) in FITTING.items() if settings.get(key) is not None}
    found = {"stage": "sft", "method": "lora"} | fitting | settings
    return {group: found[group] for group in GROUPS if group in found}


def _idle(cfg: Config, values: Settings) -> dict[str, str]:
    """The values this run would not read, and what would have to be chosen for them to act."""
    return {
        key: f"acts only with {wording.acts_with(entries()[key])}"
        for key in values
        if not _acts(cfg, entries()[key])
    }


def _acts(cfg: Config, entry: Entry) -> bool:
    declared = entry.param
    in_job = not declared.jobs or cfg.job.name in declared.jobs
    trains = (
        cfg.job.name == "train"
    )  # eval_dataset needs no training.eval_strategy where it is what is predicted
    only = {
        key: allowed
        for key, allowed in declared.conditions(trains=trains).items()
        if trains or not key.startswith("training.")
    }
    return in_job and all(value_at(cfg, key) in allowed for key, allowed in only.items())


def read_flat(path: Path) -> dict[str, object]:
    """The mapping a file holds; Refused if it is no flat YAML or names a key twice."""
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, yaml.SafeLoader)
        content = yaml.safe_load(text)
    except OSError as error:
        raise Refused([Problem(str(path), NO_VALUE, f"cannot be read: {error.strerror}")]) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        said = " ".join(str(error).split())
        raise Refused([Problem(str(path), NO_VALUE, f"is not YAML: {said}")]) from error
    if not isinstance(node, yaml.MappingNode) or not isinstance(content, dict):
        raise Refused([Problem(str(path), NO_VALUE, "holds no keys and values")])
    twice = [name for name, times in Counter(key.value for key, _ in node.value).items() if times > 1]
    if twice:
        raise Refused([Problem(name, NO_VALUE, f"stands twice in {path}", "keep one") for name in twice])
    return {str(name): value for name, value in content.items()}


def _contradictions(outcomes: Iterable[Outcome]) -> list[str]:
    """Two keys of the file that set the same thing to different values."""
    first: dict[str, tuple[str, object]] = {}
    found = []
    for outcome in outcomes:
        for key, value in outcome.settings.items():
            name, earlier = first.setdefault(key, (outcome.name, value))
            if earlier != value:
                found.append(f"{name} and {outcome.name}: set {key} to {earlier} and to {value}; keep one")
    return found


def _words(choices: Mapping[str, object], values: Mapping[str, object]) -> list[str]:
    return [f"{key}={hydra_value(value)}" for key, value in (*choices.items(), *values.items())]


def _compose(words: list[str]) -> tuple[Config, dict[str, object]]:
    """The typed config of these overrides, and what the shipped files set in it."""
    composed = compose.composed(words, implied_too=False)
    return compose.typed(composed), shipped_values(composed.hydra.runtime.choices)


def experiment(imported: Imported) -> str:
    """The text of the experiment file: choices, values by group, and as comments what does not act."""
    lines = ["# @package _global_", f"# Imported from {imported.source.name}.", "defaults:"]
    lines += [f"  - override /{group}: {yaml_value(choice)}" for group, choice in imported.choices.items()]
    lines += ["  - _self_"]
    for group in GROUPS:
        lines += _section(group, imported)
    for fate in (IDLE, MISSING):
        keys = [f"#   {o.name}  ({o.told})" for o in imported.outcomes if o.fate == fate]
        lines += ["", f"# {fate.capitalize()}:", *keys] if keys else []
    return "\n".join(lines) + "\n"


def _section(group: str, imported: Imported) -> list[str]:
    """The lines of one group: values, their defaults, and in comments what has no effect in this run."""
    acting = _of_group(group, imported.acting)
    added = _of_group(group, imported.added)
    idle = [
        f"  # {line.strip()}  ({imported.idle[key]})"
        for key, line in _of_group(group, imported.values).items()
        if key in imported.idle
    ]
    if added:
        source = f"  # not in {imported.source.name}: LLaMA-Factory's defaults, which differ from ours"
        return ["", f"{group}:", *acting.values(), source, *added.values(), *idle]
    if acting:
        return ["", f"{group}:", *acting.values(), *idle]
    return ["", f"# {group}:", *idle] if idle else []


def _of_group(group: str, values: Settings) -> dict[str, str]:
    """By full key, the line of YAML for each value of a group."""
    own = {key: value for key, value in values.items() if key.startswith(f"{group}.")}
    return {key: f"  {key.removeprefix(f'{group}.')}: {yaml_value(value)}" for key, value in own.items()}


def account(imported: Imported, to: Path | None) -> str:
    """What is printed: the keys by their fate, the command line, what would be refused, and how to run it.

    `to` is the file that was written, or None.
    """
    width = max((len(outcome.name) for outcome in imported.outcomes), default=0)
    fates = [_told(outcome, imported.idle) for outcome in imported.outcomes]
    lines = [f"{len(imported.outcomes)} keys of {imported.source}"]
    for fate in FATES:
        keys = zip(imported.outcomes, fates, strict=True)
        told = [f"  {outcome.name:<{width}}  {why}" for outcome, (became, why) in keys if became == fate]
        lines += ["", fate, *told] if told else []
    if imported.added:
        lines += ["", "written out, as LLaMA-Factory's defaults differ from ours"]
        lines += [f"  {key}={hydra_value(value)}" for key, value in imported.added.items()]
    if imported.refused:
        lines += ["", "the run will be refused until this is settled"]
        lines += [f"  {problem}" for problem in imported.refused]
    if to is not None:
        lines += ["", "the same as a command line", f"  {command_line(imported.overrides)}"]
        lines += ["", f"written to {to}; run it", f"  {_run_it(to)}"]
    return "\n".join(lines)


def _told(outcome: Outcome, idle: Mapping[str, str]) -> tuple[str, str]:
    """The fate of a key in this run, and the words for it."""
    without = [f"{key} {idle[key]}" for key in outcome.settings if key in idle]
    if without:
        return IDLE, f"a comment in the file: {'; '.join(without)}"
    return outcome.fate, outcome.told


def _run_it(to: Path) -> str:
    if to.parent.name != "experiment":
        return f"(move it into a folder named experiment first) experiment={to.stem}"
    return command_line(["--config-dir", str(to.parent.parent), f"experiment={to.stem}"])
