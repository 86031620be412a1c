"""How a parameter is put into words: the same in the help, the reference page and in `explain`."""

import sys
from collections.abc import Mapping

from llmf_hydra.config.schema import GROUPS, Entry, entries
from llmf_hydra.errors import shown

NOT_BUILT = "not built yet"


def default_of(entry: Entry) -> str:
    return shown(entry.param.default)


def allowed(entry: Entry) -> str:
    """The choices or the range, and which choices are not built yet; empty where the type is all."""
    declared = entry.param
    choices = ", ".join(declared.choices)
    if declared.planned_choices:
        choices += f" ({NOT_BUILT}: {', '.join(declared.planned_choices)})"
    return choices or declared.bounds


def acts_with(entry: Entry) -> str:
    """What lets the parameter act: `stage=dpo, rlhf.pref_loss=sigmoid`; empty where it always acts."""
    needs = conditions(entry.param.only)
    needs += [f"{condition} (in training)" for condition in conditions(entry.param.only_in_training)]
    if entry.param.jobs:
        needs.append(f"job={' or '.join(entry.param.jobs)}")
    return ", ".join(needs)


def conditions(only: Mapping[str, tuple[object, ...]]) -> list[str]:
    """The conditions of a declaration, each as it is written on the command line."""
    return [f"{address(key)}={' or '.join(map(shown, values))}" for key, values in only.items()]


def address(key: str) -> str:
    """The left side of an override: a group's own choice is `stage`, any other key `rlhf.pref_beta`."""
    entry = entries()[key]
    return entry.group if entry.is_choice else entry.key


def about(group: str) -> str:
    """What the group is for: the first line of its module, without the name and what is in brackets."""
    doc = sys.modules[GROUPS[group].__module__].__doc__ or ""
    line = doc.strip().splitlines()[0] if doc.strip() else ""
    return line.partition(": ")[2].partition(" (")[0].rstrip(".")
