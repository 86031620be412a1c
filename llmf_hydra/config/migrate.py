"""Config files of older versions: what was renamed since, so that their runs still open.

`VERSION` counts the layouts of a run's `config.yaml`. Whoever renames or removes a key raises it and adds a step
here; a file without a version is of the first layout.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llmf_hydra.errors import NO_VALUE, Problem, Refused

VERSION = 2
KEY = "schema_version"
Tree = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """From one layout to the next: keys that moved, and keys that are gone."""

    renamed: Mapping[str, str] = field(default_factory=dict)  # old full key -> new full key
    removed: tuple[str, ...] = ()


STEPS: dict[int, Step] = {
    1: Step(),  # the version itself was added
}


def migrated(tree: Tree, steps: Mapping[int, Step] = STEPS, version: int = VERSION) -> Tree:
    """The content of a `config.yaml` in the layout of today. Raises Refused for one of a newer version."""
    known = tree.get(KEY, 1)
    if not isinstance(known, int) or isinstance(known, bool) or not 1 <= known <= version:
        what = f"was written by another version of llmf_hydra, and this one reads 1 to {version}"
        raise Refused([Problem(KEY, known, what, "update llmf_hydra")])
    groups = {group: dict(values) for group, values in tree.items() if isinstance(values, Mapping)}
    odd = [key for key in tree if key not in groups and key != KEY]
    if odd:
        raise Refused([Problem(key, NO_VALUE, "is no group of parameters") for key in odd])
    for number in range(known, version):
        _take(steps[number], groups)
    return groups


def _take(step: Step, groups: dict[str, Tree]) -> None:
    for old, new in step.renamed.items():
        group, name = old.split(".", 1)
        if name in groups.get(group, {}):
            target, new_name = new.split(".", 1)
            groups.setdefault(target, {})[new_name] = groups[group].pop(name)
    for key in step.removed:
        group, name = key.split(".", 1)
        groups.get(group, {}).pop(name, None)
