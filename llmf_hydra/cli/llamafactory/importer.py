"""`llmf import FILE.yaml`: a flat LLaMA-Factory YAML becomes an experiment of ours.

Each key is carried, renamed or reported; none is lost. The result is composed and checked before it is
written, so that the answer says what the run would refuse. The file is never written over another.
"""

import argparse
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from llmf_hydra import refusals
from llmf_hydra.cli import wording
from llmf_hydra.cli.llamafactory.trainer_names import THEIR_DEFAULTS
from llmf_hydra.cli.llamafactory.translate import REPORTED, Outcome, translate
from llmf_hydra.config import compose
from llmf_hydra.config.conf_files import shipped_values
from llmf_hydra.config.quoting import command_line, hydra_value, yaml_value
from llmf_hydra.config.schema import GROUPS, Config, Entry, entries, value_at
from llmf_hydra.errors import DONE, NO_VALUE, Problem, Refused

Settings = dict[str, Any]  # by full key, and choices by group
FITTING = {  # a value of theirs -> the choice of ours that goes with it
    "model.model_name_or_path": ("model", "path"),
    "data.dataset": ("data", "path"),
    "export.export_dir": ("job", "export"),
    "evaluation.task": ("job", "evaluate"),
}


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
    def acting(self) -> Settings:
        """The values that have an effect in this run."""
        return {key: value for key, value in self.values.items() if key not in self.idle}


def main(argv: Sequence[str]) -> int:
    """Answer `llmf import FILE.yaml [--name NAME] [--to DIR]`; Refused as `import_yaml` is."""
    parser = argparse.ArgumentParser(
        "llmf import", description="Turn a flat LLaMA-Factory YAML into an experiment."
    )
    parser.add_argument("file", type=Path, help="the YAML to read")
    parser.add_argument("--name", help="name of the experiment; the file's own name if not given")
    parser.add_argument("--to", type=Path, default=Path("conf/experiment"), help="folder it is written to")
    args = parser.parse_args(argv)
    name = args.name or re.sub(r"[^\w-]+", "_", args.file.stem)
    print(import_yaml(args.file, args.to / f"{name}.yaml"))
    return DONE


def import_yaml(path: Path, to: Path) -> str:
    """Write the experiment and return the account of it; Refused if a value is invalid or `to` exists."""
    if to.exists():
        raise Refused([Problem(str(to), NO_VALUE, "is there already", "choose another name with --name")])
    imported = read(path)
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_text(experiment(imported), encoding="utf-8")
    return account(imported, to)


def read(path: Path) -> Imported:
    """Translate a flat YAML, compose the result and check it; Refused with every invalid value."""
    return _settled(path, translated(path))


def translated(path: Path) -> list[Outcome]:
    """What becomes of each key of a flat YAML, in its order; Refused with every invalid value."""
    flat = _flat(path)
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


def _settled(path: Path, outcomes: list[Outcome]) -> Imported:
    """Part choices from values, add what they leave unsaid, and ask our own check about the whole."""
    settings = {key: value for outcome in outcomes for key, value in outcome.settings.items()}
    choices = _choices(settings)
    values = {key: value for key, value in settings.items() if key not in GROUPS}
    trains = choices.get("job", "train") == "train"
    added = {key: value for key, value in THEIR_DEFAULTS.items() if trains and key not in values}
    cfg, shipped = _compose(_words(choices, values | added))
    idle = _idle(cfg, values)
    if idle:
        acting = {key: value for key, value in values.items() if key not in idle}
        cfg, shipped = _compose(_words(choices, acting | added))
    return Imported(
        path, outcomes, choices, values, added, idle, refusals.problems(cfg, shipped, [refusals.CONFIG])
    )


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
    return in_job and all(value_at(cfg, key) in allowed for key, allowed in declared.only.items())


def _flat(path: Path) -> dict[str, Any]:
    """The mapping a file holds; Refused if it is no flat YAML or names a key twice."""
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, yaml.SafeLoader)
        content = yaml.safe_load(text)
    except OSError as error:
        raise Refused([Problem(str(path), NO_VALUE, f"cannot be read: {error.strerror}")]) from error
    except yaml.YAMLError as error:
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
    first: dict[str, tuple[str, Any]] = {}
    found = []
    for outcome in outcomes:
        for key, value in outcome.settings.items():
            name, earlier = first.setdefault(key, (outcome.name, value))
            if earlier != value:
                found.append(f"{name} and {outcome.name}: set {key} to {earlier} and to {value}; keep one")
    return found


def _words(choices: Mapping[str, Any], values: Mapping[str, Any]) -> list[str]:
    return [f"{key}={hydra_value(value)}" for key, value in (*choices.items(), *values.items())]


def _compose(words: list[str]) -> tuple[Config, dict[str, Any]]:
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
    reported = [f"#   {o.name}  ({o.told})" for o in imported.outcomes if o.fate == REPORTED]
    lines += ["", "# Not carried:", *reported] if reported else []
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


def account(imported: Imported, to: Path) -> str:
    """What is printed: the table of keys, the command line, what would be refused, and how to run it."""
    width = max((len(outcome.name) for outcome in imported.outcomes), default=0)
    lines = [f"{len(imported.outcomes)} keys of {imported.source}"]
    lines += [f"  {o.name:<{width}}  {_told(o, imported.idle)}" for o in imported.outcomes]
    if imported.added:
        lines += ["", "written out, as LLaMA-Factory's defaults differ from ours"]
        lines += [f"  {key}={hydra_value(value)}" for key, value in imported.added.items()]
    if imported.refused:
        lines += ["", "the run will be refused until this is settled"]
        lines += [f"  {problem}" for problem in imported.refused]
    lines += ["", "the same as a command line", f"  {command_line(imported.overrides)}"]
    lines += ["", f"written to {to}; run it", f"  {_run_it(to)}"]
    return "\n".join(lines)


def _told(outcome: Outcome, idle: Mapping[str, str]) -> str:
    without = [f"{key} {idle[key]}" for key in outcome.settings if key in idle]
    if without:
        return f"{REPORTED:<8}  a comment in the file: {'; '.join(without)}"
    return f"{outcome.fate:<8}  {outcome.told}"


def _run_it(to: Path) -> str:
    if to.parent.name != "experiment":
        return f"(move it into a folder named experiment first) experiment={to.stem}"
    return command_line(["--config-dir", str(to.parent.parent), f"experiment={to.stem}"])
