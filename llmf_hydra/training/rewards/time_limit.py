"""A time limit for code that isn't ours."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class TimedOut(BaseException):
    """The time is over. Not an Exception: what catches those, as a user's function may, must let it through."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise TimedOut in the code within once it has taken so long.

    The alarm interrupts Python code, waiting calls and regular expressions. Away from the main thread, which alone is
    told of alarms, there is no limit.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        raise TimedOut

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
