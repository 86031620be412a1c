"""The words of the command line, checked against the schema before Hydra composes anything.

Hydra stops at the first wrong word and advises `+`; here all are told at once, each with the nearest name.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, QuotedString
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from llmf_hydra.config.implied import DEMO
from llmf_hydra.config.schema import GROUPS, Entry, entries
from llmf_hydra.config.store import options
from llmf_hydra.errors import NO_VALUE, Problem, did_you_mean

RECIPES = ("experiment", DEMO)  # groups beside the schema's


def problems(words: list[str], folders: list[Path]) -> list[Problem]:
    """What is wrong with the overrides of a command line; `folders` hold the config groups."""
    found: list[Problem] = []
    parser = OverridesParser.create()
    for word in words:
        try:
            override = parser.parse_override(word)
        except HydraException:  # OverrideParseException, or its parent for words with an open bracket
            found.append(
                Problem(
                    word,
                    NO_VALUE,
                    "cannot be read",
                    "write key=value; quote text with , = or spaces: \"key='a, b'\"",
                )
            )
            continue
        found += _of_override(override, word, folders)
    return found


def _of_override(override: Override, word: str, folders: list[Path]) -> Iterator[Problem]:
    key = override.key_or_group
    if key.split(".")[0].split("/")[0] == "hydra":
        return
    if override.is_delete():
        yield Problem(
            word,
            NO_VALUE,
            "every parameter is part of the schema and cannot be taken out",
            f"write {key}=null where null is allowed",
        )
    elif key in GROUPS or key in RECIPES:
        yield from _of_choice(override, key, folders)
    elif override.is_add() and not override.is_force_add():
        yield from (
            unknown(key)
            if key not in entries()
            else [Problem(word, NO_VALUE, "the parameter is there already", f"write {word.lstrip('+')}")]
        )
    else:
        yield from _of_value(override, key)


def _of_choice(override: Override, group: str, folders: list[Path]) -> Iterator[Problem]:
    known = options(group, folders)
    for value in _values(override):
        for name in value if isinstance(value, list) else [value]:
            text = str(name).removesuffix(".yaml")
            if name is None:
                yield Problem(group, None, "a choice cannot be null", "leave it out")
            elif text not in known:
                yield Problem.bad_choice(group, name, known)
            elif f"{group}.name" in entries():
                unbuilt = entries()[f"{group}.name"].not_built(text)
                if unbuilt is not None:
                    yield unbuilt


def _of_value(override: Override, key: str) -> Iterator[Problem]:
    entry = _entry(key)
    if entry is None:
        yield from unknown(key)
        return
    for value in _values(override):
        if entry.is_choice and entry.key == key:
            yield Problem(key, value, "is chosen with its file", f"write {entry.group}={value}")
        elif entry.key == key:
            problem = value_problem(entry, value) or entry.not_built(value)
            if problem is not None:
                yield problem


def value_problem(entry: Entry, value: Any) -> Problem | None:
    """What is wrong with a raw value for this parameter (its type, range, choices), or None."""
    if isinstance(value, str) and "${" in value:
        return None  # an interpolation: known only once composed
    try:
        typed = OmegaConf.structured(GROUPS[entry.group])
        typed[entry.name] = value
        converted = typed[entry.name]
    except OmegaConfBaseException:
        return Problem(entry.key, value, f"is not of type {entry.type_name}", _range_of(entry))
    return entry.param.problem(entry.key, converted)


def _range_of(entry: Entry) -> str:
    if entry.param.choices:
        return f"allowed: {', '.join(entry.param.choices)}"
    return (
        f"allowed: {entry.param.bounds}" if entry.param.bounds else f"default: {entry.param.default}".lower()
    )


def _values(override: Override) -> list[Any]:
    """The values an override gives: one, or each of a sweep; of an interval its ends."""
    interval = override.value()
    if isinstance(interval, IntervalSweep):
        return [interval.start, interval.end]
    if override.is_sweep_override():
        return [_plain(value) for value in override.sweep_iterator()]
    return [_plain(override.value())]


def _plain(value: Any) -> Any:
    return value.text if isinstance(value, QuotedString) else value


def _entry(key: str) -> Entry | None:
    """The parameter of a key; a key below one that holds a mapping (`data.dataset_dir.mine`) is its own."""
    known = entries()
    if key in known:
        return known[key]
    above = known.get(".".join(key.split(".")[:2]))
    return above if above is not None and above.type is Any else None


def unknown(key: str) -> Iterator[Problem]:
    """The refusal of a key that isn't in the schema, with the nearest one that is."""
    group, _, rest = key.partition(".")
    if not rest:
        homes = [entry.key for entry in entries().values() if entry.name == key]
        remedy = (
            f"write {' or '.join(homes)}"
            if homes
            else did_you_mean(key, [*GROUPS, *entries(), *_bare_names()])
        )
        yield Problem(
            key, NO_VALUE, "no such parameter or group", remedy or "`llmf-hydra --help` lists the groups"
        )
    elif group not in GROUPS:
        yield Problem(
            key,
            NO_VALUE,
            f"no such group '{group}'",
            did_you_mean(key, entries()) or did_you_mean(group, GROUPS),
        )
    else:
        own = [entry.name for entry in entries().values() if entry.group == group]
        elsewhere = [entry.key for entry in entries().values() if entry.name == rest]
        remedy = (
            f"did you mean '{elsewhere[0]}'?" if elsewhere else _with_group(group, did_you_mean(rest, own))
        )
        yield Problem(
            key,
            NO_VALUE,
            f"no such parameter in group '{group}'",
            remedy or f"`llmf-hydra --help {group}` lists them",
        )


def _with_group(group: str, hint: str) -> str:
    return hint.replace("'", f"'{group}.", 1) if hint else ""


def _bare_names() -> set[str]:
    return {entry.name for entry in entries().values()}
