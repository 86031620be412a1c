"""Which of the installed packages can decide a result: those that llmf_hydra needs, and what these need."""

import functools
import importlib.metadata
import re

OURS = "llmf_hydra"
NOT_IN_RUNS = re.compile(r"extra\s*==\s*['\"](dev|report)['\"]")  # tools; a run doesn't import them
NAME = re.compile(r"[A-Za-z0-9._-]+")


@functools.cache
def deciding() -> frozenset[str] | None:
    """Normalized names of the packages that a run may import; None where llmf_hydra itself isn't installed."""
    found: set[str] = set()
    waiting = [OURS]
    while waiting:
        name = waiting.pop()
        if normalized(name) in found:
            continue
        try:
            needed = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            if name == OURS:
                return None
            needed = []
        found.add(normalized(name))
        waiting += [match[0] for line in needed if (match := NAME.match(line)) and _counts(name, line)]
    return frozenset(found)


def normalized(name: str) -> str:
    """A package's name as pip compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _counts(owner: str, requirement: str) -> bool:
    """Whether a requirement is one of a run: our own extras are, but for tools; those of other packages aren't."""
    if owner == OURS:
        return not NOT_IN_RUNS.search(requirement)
    return "extra ==" not in requirement.replace("extra==", "extra ==")
