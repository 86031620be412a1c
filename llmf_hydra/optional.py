"""Optional packages: asked for by name, refused with the command that installs them."""

import importlib
import importlib.util
from types import ModuleType

from llmf_hydra.errors import NO_VALUE, Problem, Refused


def missing(package: str, *, extra: str, key: str) -> Problem | None:
    """The refusal of a choice whose package isn't installed, or None. Looks, and imports nothing."""
    if importlib.util.find_spec(package) is not None:
        return None
    return Problem(key, NO_VALUE, f"needs the package {package}", f"pip install 'llmf_hydra[{extra}]'")


def require(package: str, *, extra: str, key: str) -> ModuleType:
    """Import an optional package; raises Refused with the command that installs it."""
    problem = missing(package, extra=extra, key=key)
    if problem is not None:
        raise Refused([problem])
    return importlib.import_module(package)
