"""Constraints of a study: bounds on metrics that the best trial has to hold."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llmf_hydra.errors import Problem, Refused

NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
FORM = re.compile(rf"^\s*(?P<metric>[\w/.-]+)\s*(?P<sign><=|>=)\s*(?P<bound>{NUMBER})\s*$")


@dataclass(frozen=True)
class Constraint:
    """`metric <= bound` or `metric >= bound`."""

    metric: str
    at_most: bool
    bound: float

    def broken_by(self, values: Mapping[str, float]) -> float:
        """By how much these values break it; 0 or less: they hold it. A metric that is lacking, or NaN, breaks it."""
        value = values.get(self.metric)
        if value is None or math.isnan(value):
            return 1.0
        return value - self.bound if self.at_most else self.bound - value


def read(texts: Sequence[str]) -> list[Constraint]:
    """The constraints of `hydra.sweeper.constraints`; raises Refused for one that cannot be read."""
    found = [(text, FORM.match(text)) for text in texts]
    wrong = [
        Problem("hydra.sweeper.constraints", text, "cannot be read", "write metric<=number or metric>=number")
        for text, match in found
        if match is None
    ]
    if wrong:
        raise Refused(wrong)
    return [
        Constraint(match["metric"], match["sign"] == "<=", float(match["bound"]))
        for _, match in found
        if match is not None
    ]
