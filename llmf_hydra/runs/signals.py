"""Being stopped: the first SIGTERM or SIGINT asks the trainer to save and end, and is never lost.

While nothing can be saved yet (`stoppable` isn't entered), it ends the worker at once.
"""

import ctypes
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EARLY = 128 + signal.SIGTERM  # exit code of a worker that was stopped before there was anything to save
_state = {"asked": False, "stoppable": False, "begun": False}


class Interrupted(BaseException):
    """The user stopped the run. No Exception, so that no library swallows it."""


def install() -> None:
    """Listen to SIGTERM and SIGINT, and have the kernel send SIGTERM if the parent dies."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _on_signal)
    end_with_parent()


def end_with_parent() -> None:
    """Have the kernel send SIGTERM to this process if its parent, the launcher or the warm server, dies."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def asked() -> bool:
    """Whether the run was asked to stop."""
    return _state["asked"]


def begun() -> bool:
    """Whether there is a state to save: the training was entered."""
    return _state["begun"]


def ignore() -> None:
    """From here on the worker only says how it ended."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def stoppable() -> Iterator[None]:
    """Within, a signal only sets `asked`, and the loop stops at its next step; it ends with Interrupted then."""
    _state["stoppable"] = _state["begun"] = True
    try:
        yield
    finally:
        _state["stoppable"] = False
    if asked():
        raise Interrupted


def _on_signal(number: int, frame: FrameType | None) -> None:
    """Later signals change nothing: whoever can't wait sends SIGKILL."""
    first, _state["asked"] = not asked(), True
    if first and not _state["stoppable"]:
        raise Interrupted
