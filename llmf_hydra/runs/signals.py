"""Being stopped: the first SIGTERM or SIGINT asks the trainer to save and end, and is never lost.

While nothing can be saved yet (`stoppable` isn't entered), it ends the worker at once.
"""

import ctypes
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_state = {"asked": False, "stoppable": False}


class Interrupted(BaseException):
    """The user stopped the run. No Exception, so that no library swallows it."""


def install() -> None:
    """Listen to SIGTERM and SIGINT, and have the kernel send SIGTERM if the launcher dies."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _on_signal)
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def asked() -> bool:
    """Whether the run was asked to stop."""
    return _state["asked"]


@contextmanager
def stoppable() -> Iterator[None]:
    """Within, a signal only sets `asked`, and the loop stops at its next step; it ends with Interrupted then."""
    _state["stoppable"] = True
    try:
        yield
    finally:
        _state["stoppable"] = False
    if asked():
        raise Interrupted


def _on_signal(number: int, frame: FrameType | None) -> None:
    _state["asked"] = True
    if not _state["stoppable"]:
        raise Interrupted
