"""Numbers where true or false is meant: OmegaConf reads any of them as one of the two, so they are refused before."""

from collections.abc import Mapping
from typing import Any

from llmf_hydra.config.schema import Entry, entries
from llmf_hydra.errors import Problem


def number_for_switch(entry: Entry, value: Any, where: str = "") -> Problem | None:
    """The refusal of `bf16: 1`, or None; `where` follows the key."""
    if (
        not entry.type_name.startswith("bool")
        or isinstance(value, bool)
        or not isinstance(value, int | float)
    ):
        return None
    return Problem(f"{entry.key}{where}", value, f"is not of type {entry.type_name}", "write true or false")


def numbers_for_switches(groups: Mapping[str, Any], file: str) -> list[Problem]:
    """The refusals of all numbers that a file's content, by group and name, has for true or false."""
    found = []
    for group, rows in groups.items():
        for name, value in rows.items() if isinstance(rows, Mapping) else ():
            entry = entries().get(f"{group}.{name}")
            if entry is not None:
                found.append(number_for_switch(entry, value, f" (in {file})"))
    return [problem for problem in found if problem is not None]
