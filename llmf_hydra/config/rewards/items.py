"""The list `rlhf.rewards`: what each kind of reward is called, what it takes, and how an item is written.

An item is `KIND`, `KIND:ARGUMENT`, or a mapping `{kind: KIND, weight: 0.5, ...}` with the options of its kind.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from llmf_hydra.errors import NO_VALUE, Problem, did_you_mean

KEY = "rlhf.rewards"
Option = tuple[type, ...]  # the types that a value may have
FUNCTION = re.compile(r"(?:\w+(?:\.\w+)*|.+\.py):[A-Za-z_]\w*")  # of a module or of a file


@dataclass(frozen=True)
class RewardKind:
    """One kind of reward. `argument` is the option that stands after the colon, and which it can't do without."""

    help: str
    argument: str | None = None
    options: Mapping[str, Option] = field(default_factory=dict)
    defaults: Mapping[str, object] = field(default_factory=dict)

    @property
    def known(self) -> dict[str, Option]:
        """All options, the argument first."""
        return {**({self.argument: (str, int)} if self.argument else {}), **self.options}


_COMPARED: Mapping[str, Option] = {"column": (str,), "extract": (str,)}

KINDS: dict[str, RewardKind] = {
    "exact_match": RewardKind(
        "1 where the answer is the reference answer, without white space around", None,
        {**_COMPARED, "ignore_case": (bool,)}, {"ignore_case": False},
    ),
    "numeric": RewardKind(
        "1 where the last number of the answer is that of the reference", None,
        {**_COMPARED, "tolerance": (int, float)}, {"tolerance": 0},
    ),
    "math": RewardKind("1 where math-verify finds both expressions equal", None, _COMPARED),
    "regex": RewardKind("1 where the pattern is found in the answer", "pattern"),
    "json_schema": RewardKind("1 where the answer is JSON that fits the schema (a file)", "schema"),
    "format": RewardKind(
        "1 where the answer is made of the tags, in their order", None, {"tags": (str,)}, {"tags": "think,answer"}
    ),
    "length": RewardKind(
        "0 up to `max` - `buffer` tokens, falling to -1 at `max` (DAPO's soft overlong punishment)", "max",
        {"buffer": (int,)}, {"buffer": 0},
    ),
    "python": RewardKind(
        "what a function of (prompts, completions, **columns) returns, of a module or a file", "function"
    ),
    "model": RewardKind("the score of a reward model or adapter that stage=rm has written", "path"),
    "service": RewardKind("what an HTTP service answers", "url"),
}  # fmt: skip


@dataclass(frozen=True)
class RewardSpec:
    """An item of the list. `label` names it in metrics and messages, and is unique."""

    kind: str
    label: str
    options: Mapping[str, Any]
    weight: float = 1.0

    @property
    def argument(self) -> str:
        """The value of the kind's argument."""
        return str(self.options[str(KINDS[self.kind].argument)])

    @property
    def column(self) -> str:
        """The column of the rows that holds the reference answer."""
        return str(self.options.get("column", "answer"))

    @property
    def compares(self) -> bool:
        """Whether it needs a reference answer."""
        return "column" in KINDS[self.kind].options


def specs(rewards: object) -> list[RewardSpec]:
    """The rewards of a config that was checked."""
    found: list[RewardSpec] = []
    for item in _items(rewards):
        options = _options(item)
        kind, weight = str(options.pop("kind")), float(options.pop("weight", 1.0))
        label = _label(kind, options)
        taken = sum(spec.label == label or spec.label.startswith(f"{label}_") for spec in found)
        name = f"{label}_{taken + 1}" if taken else label
        found.append(RewardSpec(kind, name, {**KINDS[kind].defaults, **options}, weight))
    return found


def problems(rewards: object) -> Iterator[Problem]:
    """What is wrong with the way the list is written."""
    items = _items(rewards)
    for number, item in enumerate(items):
        yield from _problems(f"{KEY}[{number}]" if len(items) > 1 else KEY, item)


def _items(rewards: object) -> list[Any]:
    if rewards is None:
        return []
    return list(rewards) if isinstance(rewards, list | tuple) else [rewards]


def _options(item: Any) -> dict[str, Any]:
    """An item as a mapping with the key `kind`."""
    if not isinstance(item, str):
        return dict(item)
    kind, colon, value = item.partition(":")
    argument = KINDS[kind].argument if kind in KINDS else None
    return {"kind": kind, **({argument or "argument": value} if colon else {})}


def _label(kind: str, options: Mapping[str, Any]) -> str:
    """The kind; a function is called by its name."""
    return str(options["function"]).rpartition(":")[2] if kind == "python" else kind


def _problems(key: str, item: Any) -> Iterator[Problem]:
    if not isinstance(item, str | Mapping):
        yield Problem(
            key, item, "is no reward", "write KIND, KIND:ARGUMENT or {kind: KIND, weight: 0.5, ...}"
        )
        return
    options = _options(item)
    if "kind" not in options:
        what = f"a mapping without its kind, which is one of {', '.join(KINDS)}"
        yield Problem(key, NO_VALUE, f"is {what}", "write {kind: KIND, weight: 0.5, ...}")
        return
    kind = options.pop("kind")
    if kind not in KINDS:
        yield Problem.bad_choice(key, str(kind), tuple(KINDS))
        return
    weight = options.pop("weight", 1.0)
    if not _is_number(weight) or weight == 0 or abs(weight) > 1e6:
        yield Problem(f"{key}.weight", weight, "must be a number other than 0, of at most 1e6 in size")
    known = KINDS[kind].known
    for name, value in options.items():
        if name not in known:
            has = f"has {', '.join(['weight', *known])}"
            what = "takes no argument" if name == "argument" else f"is no option of {kind}, which {has}"
            yield Problem(
                f"{key}.{name}" if name != "argument" else key, value, what, did_you_mean(name, known)
            )
        elif not isinstance(value, known[name]) or (isinstance(value, bool) and bool not in known[name]):
            yield Problem(f"{key}.{name}", value, f"must be {' or '.join(t.__name__ for t in known[name])}")
    argument = KINDS[kind].argument
    if argument is not None and options.get(argument) in (None, ""):
        yield Problem(key, kind, f"needs its {argument}", f"write {kind}:{argument.upper()}")
    elif not any(name not in known for name in options):
        yield from _wrong_values(key, kind, options)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf


def _wrong_values(key: str, kind: str, options: Mapping[str, Any]) -> Iterator[Problem]:
    for name in ("pattern", "extract"):
        if isinstance(options.get(name), str):
            try:
                re.compile(options[name])
            except (re.error, RecursionError, OverflowError) as error:
                yield Problem(f"{key}.{name}", options[name], f"is no regular expression: {error}")
    if options.get("column") == "":
        yield Problem(f"{key}.column", "", "names no column")
    if kind == "length":
        yield from _length(key, options)
    tolerance = options.get("tolerance", 0)
    if kind == "numeric" and (not _is_number(tolerance) or tolerance < 0):
        yield Problem(f"{key}.tolerance", tolerance, "must be >= 0 and finite")
    if kind == "python" and not FUNCTION.fullmatch(str(options["function"])):
        yield Problem(f"{key}.function", options["function"], "names no function",
                      "write my_module:my_function or path/to/my_file.py:my_function")  # fmt: skip
    if kind == "format" and not all(re.fullmatch(r"\s*\w+\s*", tag) for tag in _tags(options)):
        yield Problem(f"{key}.tags", options["tags"], "must be names of tags, separated by commas")
    if kind == "service" and not str(options["url"]).startswith(("http://", "https://")):
        yield Problem(f"{key}.url", options["url"], "is no URL", "begin it with http:// or https://")


def _tags(options: Mapping[str, Any]) -> list[str]:
    return str(options.get("tags", "think,answer")).split(",")


def _length(key: str, options: Mapping[str, Any]) -> Iterator[Problem]:
    most, buffer = str(options["max"]), options.get("buffer", 0)
    if not most.isdigit() or int(most) < 1:
        yield Problem(f"{key}.max", options["max"], "must be a number of tokens")
    elif isinstance(buffer, int) and not 0 <= buffer <= int(most):
        yield Problem(f"{key}.buffer", buffer, f"must be in [0, {most}]")


def named_twice(found: list[RewardSpec]) -> Problem | None:
    """The refusal of a reward that stands in the list twice with the same options, which a weight of 2 says better."""
    for number, spec in enumerate(found):
        if any(spec.kind == other.kind and spec.options == other.options for other in found[:number]):
            return Problem(
                KEY, NO_VALUE, f"holds {spec.kind} twice with the same options", "give it a weight"
            )
    return None
