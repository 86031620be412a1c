"""How a rule across parameters is declared: `@rule("rlhf.ref_model", ...)` before its check."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from llmf_hydra.config.schema import Config
from llmf_hydra.errors import Problem

Check = Callable[[Config], Iterator[Problem]]


@dataclass(frozen=True)
class Rule:
    """A check on the whole config, and the keys it speaks of."""

    keys: tuple[str, ...]
    sentence: str
    check: Check


RULES: list[Rule] = []


def rule(*keys: str) -> Callable[[Check], Check]:
    """Register a check under the keys it speaks of; its docstring is the sentence `llmf explain` shows."""

    def register(check: Check) -> Check:
        RULES.append(Rule(keys, (check.__doc__ or "").strip(), check))
        return check

    return register
