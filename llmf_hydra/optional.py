"""Optional packages: asked for by name, refused with the command that installs them."""

import importlib
import importlib.util
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from llmf_hydra.errors import NO_VALUE, Problem, Refused

# Imported by Transformers and Accelerate wherever they are installed, for seconds and with warnings of their own, and
# used by no process that imports these: our wandb tracker has its own.
UNUSED = ("wandb", "deepspeed")

# Environment variable: more packages that the process leaves out, separated by commas.
WITHOUT = "LLMF_WITHOUT"
# Imported by Transformers wherever it is installed, for seconds of a start, and used by losses of object detection
# alone. Who needs it here imports it itself.
PUT_OFF = ("scipy",)


def leave_out_unused(*more: str) -> None:
    """Have this process import none of UNUSED and `more`, nor what WITHOUT names, and miss no kernel aloud.

    Called before Transformers is imported.
    """
    # It misses an optional one, on every CPU.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    for name in (*UNUSED, *more, *filter(None, os.environ.get(WITHOUT, "").split(","))):
        sys.modules[name] = None  # type: ignore[assignment]


@contextmanager
def put_off() -> Iterator[None]:
    """Within, where Transformers is imported, none of PUT_OFF is; afterwards they can be."""
    blocked = [name for name in PUT_OFF if name not in sys.modules]
    for name in blocked:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        for name in blocked:
            sys.modules.pop(name)


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
