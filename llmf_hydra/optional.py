"""Optional packages: asked for by name, refused with the command that installs them."""

import importlib
import importlib.util
import logging
import sys
from types import ModuleType

from llmf_hydra.errors import NO_VALUE, Problem, Refused

# Imported by Transformers and Accelerate wherever they are installed, for seconds and with warnings of their own, and
# used by no process that imports these: our wandb tracker has its own.
UNUSED = ("wandb", "deepspeed")


def leave_out_unused() -> None:
    """Have this process import none of UNUSED, and miss no kernel aloud; called before Transformers is imported."""
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(
        logging.ERROR
    )  # an optional one, on every CPU
    for name in UNUSED:
        sys.modules[name] = None  # type: ignore[assignment]


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
