"""The words of the command line, checked against the schema before Hydra composes anything.

Hydra stops at the first wrong word and advises `+`; here all are told at once, each with the nearest name.
"""

import functools
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, QuotedString, RangeSweep
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from llmf_hydra.config.conf_files import DEMO
from llmf_hydra.config.schema import GROUPS, Entry, entries
from llmf_hydra.config.spec import ANY, rows_named
from llmf_hydra.config.switches import number_for_switch
from llmf_hydra.errors import NO_VALUE, Problem, did_you_mean, shown

RECIPES = ("experiment", DEMO)  # groups beside the schema's
SHOWN = 80  # characters of a word that a message repeats
SEARCH_PATH = "hydra.searchpath"
LOOKED_AT = 1000  # values of one sweep that are checked before its first trial
PACKAGES = {  # choices that a plugin of Hydra's brings -> the package to install
    "hydra/launcher": {
        "joblib": "hydra-joblib-launcher",
        "ray": "hydra-ray-launcher",
        "ray_aws": "hydra-ray-launcher",
        "rq": "hydra-rq-launcher",
        "submitit_local": "hydra-submitit-launcher",
        "submitit_slurm": "hydra-submitit-launcher",
    },
    "hydra/sweeper": {
        "ax": "hydra-ax-sweeper",
        "nevergrad": "hydra-nevergrad-sweeper",
        "optuna": "hydra-optuna-sweeper",
    },
    "hydra/job_logging": {"colorlog": "hydra-colorlog"},
    "hydra/hydra_logging": {"colorlog": "hydra-colorlog"},
}


def without_plus(word: str) -> str:
    """`+experiment=x` as `experiment=x`: the group is in the defaults list, where Hydra would refuse the plus."""
    key = word.partition("=")[0].removeprefix("+")
    return word[1:] if word.startswith("+") and (key in GROUPS or key in RECIPES) else word


def problems(words: Sequence[str], loader: ConfigLoader) -> list[Problem]:
    """What is wrong with the overrides of a command line; the loader knows the choices of each group."""
    found: list[Problem] = []
    for word in words:
        try:
            word.encode()
            override = _parsed(word, loader)
            found += _of_override(override, word, loader)
        except UnicodeEncodeError:
            found.append(Problem(ascii(word)[1:-1], NO_VALUE, "is not valid text in UTF-8"))
        except RecursionError:
            found.append(Problem(_cut(word), NO_VALUE, "is nested too deeply"))
        except (HydraException, ValueError):  # ValueError: a number of thousands of digits
            remedy = "write key=value; quote text with , = spaces or letters beyond ASCII: \"key='a, b'\""
            found.append(Problem(_cut(word), NO_VALUE, "cannot be read", remedy))
    return found


def swept(words: Sequence[str]) -> list[str]:
    """The words that give several values to try; all words must have been found sound."""
    return [word for word in words if OverridesParser.create().parse_override(word).is_sweep_override()]


def several_values(word: str) -> Problem:
    """The refusal of `key=a,b` where there is one run."""
    key, _, value = word.partition("=")
    remedy = f"add -m to run each, or quote a list of names: \"{key}='{value}'\""
    return Problem(key, value, "is several values, and this is one run", remedy)


def idle_search_path(key: str, folders: object) -> Problem:
    """The refusal of folders that would add choices to the composition and not to what is checked, or to trials."""
    remedy = "put a folder before the shipped one with LLMF_CONF=FOLDER, or add its choices with --config-dir FOLDER"
    return Problem(key, folders, "is not read", remedy)


def unknown_choice(group: str, name: object, known: Sequence[str]) -> Problem:
    """The refusal of a choice that no file and no plugin gives."""
    package = PACKAGES.get(group, {}).get(str(name))
    if package:
        return Problem(f"{group}={name}", NO_VALUE, f"needs the package {package}", f"pip install {package}")
    return Problem.bad_choice(group, name, known)


def _parsed(word: str, loader: ConfigLoader) -> Override:
    override = OverridesParser.create().parse_override(word)
    override.config_loader = loader  # glob() asks it for the choices
    return override


def _cut(word: str) -> str:
    return word if len(word) <= SHOWN else f"{word[:SHOWN]}…"


def _of_override(override: Override, word: str, loader: ConfigLoader) -> Iterator[Problem]:
    key = override.key_or_group
    if key.startswith("hydra/") and not override.is_delete():
        yield from _of_choice(override, key, loader)
    elif key == SEARCH_PATH and not override.is_delete():
        yield idle_search_path(key, word.partition("=")[2])
    elif key.split(".")[0].split("/")[0] == "hydra":
        return
    elif override.is_delete():
        what = "every parameter is part of the schema and cannot be taken out"
        yield Problem(word, NO_VALUE, what, f"write {key}=null where null is allowed")
    elif key in GROUPS or key in RECIPES or (key not in entries() and loader.get_group_options(key)):
        yield from _of_choice(override, key, loader)
    elif override.is_add() and not override.is_force_add():
        yield from (
            unknown(key)
            if key not in entries()
            else [Problem(word, NO_VALUE, "the parameter is there already", f"write {word.lstrip('+')}")]
        )
    else:
        yield from _of_value(override, key)


def _of_choice(override: Override, group: str, loader: ConfigLoader) -> Iterator[Problem]:
    known = loader.get_group_options(group)
    for value in _values(override):
        for name in value if isinstance(value, list) else [value]:
            text = str(name).removesuffix(".yaml")
            if name is None:
                if group in GROUPS:
                    yield Problem(group, None, "a choice cannot be null", "leave it out")
            elif text not in known:
                yield unknown_choice(group, name, known)
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


def value_problem(entry: Entry, value: object) -> Problem | None:
    """What is wrong with a raw value for this parameter (its type, range, choices), or None."""
    if isinstance(value, str) and "${" in value:
        return None  # an interpolation: known only once composed
    number = number_for_switch(entry, value)
    if number is not None:
        return number
    try:
        typed = _typed(entry.group)
        typed[entry.name] = value
        converted = typed[entry.name]
    except OmegaConfBaseException:
        return Problem(entry.key, value, f"is not of type {entry.type_name}", _range_of(entry))
    return entry.param.problem(entry.key, converted)


@functools.cache
def _typed(group: str) -> DictConfig:
    """A group in which values are tried: each is read back at once, so that what was tried before doesn't matter."""
    return OmegaConf.structured(GROUPS[group])


def _range_of(entry: Entry) -> str:
    if entry.param.choices:
        return f"allowed: {', '.join(entry.param.choices)}"
    return (
        f"allowed: {entry.param.bounds}" if entry.param.bounds else f"default: {shown(entry.param.default)}"
    )


def _values(override: Override) -> list[object]:
    """The values an override gives: one, or each of a sweep; of an interval its ends."""
    given = override.value()
    if isinstance(given, IntervalSweep):
        return [given.start, given.end]
    if isinstance(given, RangeSweep) or override.is_sweep_override():
        return [_plain(value) for value in islice(override.sweep_iterator(), LOOKED_AT)]
    return [_plain(given)]


def _plain(value: object) -> object:
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
        homes = homes_of(key)
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
        elsewhere = homes_of(rest)
        remedy = (
            f"did you mean '{elsewhere[0]}'?" if elsewhere else _with_group(group, did_you_mean(rest, own))
        )
        yield Problem(
            key,
            NO_VALUE,
            f"no such parameter in group '{group}'",
            remedy or f"`llmf-hydra --help {group}` lists them",
        )


def homes_of(name: str) -> list[str]:
    """Where a name without its group lives: full keys, else the place of a row of the specification (`method=…`)."""
    keys = [entry.key for entry in entries().values() if entry.name == name]
    places = (str(row.place).replace(f"={ANY}", "=CHOICE") for row in rows_named(name))
    return keys or list(dict.fromkeys(places))


def _with_group(group: str, hint: str) -> str:
    return hint.replace("'", f"'{group}.", 1) if hint else ""


def _bare_names() -> set[str]:
    return {entry.name for entry in entries().values()}
