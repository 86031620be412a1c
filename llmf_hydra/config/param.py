"""`param`: the one way in which a parameter is declared.

Type, default, check, help line, reference page and editor schema all come from that one declaration.
"""

import dataclasses
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from llmf_hydra.errors import Problem

Default = TypeVar("Default")
LARGEST = 2**31 - 1  # of a whole number without an upper bound of its own: what a 32-bit count holds
KEY = "param"  # where a dataclass field's metadata holds its Param


@dataclass(frozen=True)
class Param:
    """What is known of one parameter beside its name, its group and its type."""

    default: Any
    help: str
    choices: tuple[str, ...] = ()
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    only: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)  # full key -> values that let it act
    only_in_training: Mapping[str, tuple[Any, ...]] = field(
        default_factory=dict
    )  # the same, of jobs that train
    jobs: tuple[str, ...] = ()  # jobs that read it; () = see `checks.inference`
    env: str | None = None  # environment variable that gives the default
    secret: bool = False  # never written to disk
    planned: bool = False  # declared, not built yet: setting it is refused
    planned_choices: tuple[str, ...] = ()
    shown_type: str = "str or mapping"  # how a reader writes a value whose type is Any

    @property
    def bounds(self) -> str:
        """The allowed range in words, such as `>= 1` or `in [0, 0.5]`; empty where there is none."""
        low = self.ge if self.ge is not None else self.gt
        high = self.le if self.le is not None else self.lt
        if low is not None and high is not None:
            left, right = "[" if self.ge is not None else "(", "]" if self.le is not None else ")"
            return f"in {left}{_number(low)}, {_number(high)}{right}"
        if low is not None:
            return f"{'>=' if self.ge is not None else '>'} {_number(low)}"
        if high is not None:
            return f"{'<=' if self.le is not None else '<'} {_number(high)}"
        return ""

    def problem(self, key: str, value: Any) -> Problem | None:
        """What is wrong with a value of the right type, or None."""
        if value is None:
            return None
        if self.choices and value not in self.choices:
            return Problem.bad_choice(key, value, self.choices)
        if isinstance(value, float) and not math.isfinite(value):
            return Problem(key, value, "is not a finite number", self.bounds and f"must be {self.bounds}")
        if isinstance(value, int | float) and not isinstance(value, bool) and not self._within(value):
            return Problem(key, value, f"must be {self.bounds}")
        if isinstance(value, int) and not self._has_upper_bound and abs(value) > LARGEST:
            return Problem(key, value, f"must be at most {LARGEST} in size")
        return None

    def conditions(self, *, trains: bool) -> Mapping[str, tuple[Any, ...]]:
        """Full keys with the values of them that let it act, in a job that trains or in another one."""
        return {**self.only, **self.only_in_training} if trains else self.only

    @property
    def _has_upper_bound(self) -> bool:
        return self.le is not None or self.lt is not None

    def _within(self, value: float) -> bool:
        return (
            (self.ge is None or value >= self.ge)
            and (self.gt is None or value > self.gt)
            and (self.le is None or value <= self.le)
            and (self.lt is None or value < self.lt)
        )


def param(
    default: Default,
    help: str,
    *,
    choices: tuple[str, ...] = (),
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    only: Mapping[str, tuple[Any, ...]] | None = None,
    only_in_training: Mapping[str, tuple[Any, ...]] | None = None,
    jobs: tuple[str, ...] = (),
    env: str | None = None,
    secret: bool = False,
    planned: bool = False,
    planned_choices: tuple[str, ...] = (),
    shown_type: str = "str or mapping",
) -> Default:
    """Declare a parameter as the default of a dataclass field.

    `env` names the environment variable that is read once, when the config is composed, as the field's
    default: `param(8000, "Port.", env="API_PORT")` becomes `${oc.env:API_PORT,8000}`.
    """
    limits = {"ge": ge, "gt": gt, "le": le, "lt": lt}
    declared = Param(
        default, help, choices, **limits, only=only or {}, only_in_training=only_in_training or {}, jobs=jobs,
        env=env, secret=secret, planned=planned, planned_choices=planned_choices, shown_type=shown_type,
    )  # fmt: skip
    return _field(default, declared)


def _field(default: Any, declared: Param) -> Any:
    metadata, env = {KEY: declared}, declared.env
    if env is not None:
        return field(default=f"${{oc.env:{env},{_literal(default)}}}", metadata=metadata)
    if isinstance(default, list | dict):
        return field(default_factory=lambda: default.copy(), metadata=metadata)
    return field(default=default, metadata=metadata)


def set_in_environment(declared: Param) -> bool:
    """Whether this process's environment gives the parameter's default."""
    return declared.env is not None and declared.env in os.environ


def declaration(of: dataclasses.Field[Any]) -> Param:
    """The Param of a dataclass field."""
    return of.metadata[KEY]


def _number(bound: float) -> str:
    """A bound in full: a large whole number keeps its digits."""
    return str(bound) if isinstance(bound, int) else f"{bound:g}"


def _literal(default: Any) -> str:
    if default is None:
        return "null"
    if isinstance(default, bool):
        return str(default).lower()
    return f"'{default}'" if isinstance(default, str) else str(default)
