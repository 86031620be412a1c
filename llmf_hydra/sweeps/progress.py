"""The bar of a whole study, below the lines that it prints: on a terminal only."""

import os
import sys
import threading
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from tqdm import tqdm


class StudyBar:
    """How many trials are over. Without a terminal at stderr it draws nothing, and lines are printed as ever."""

    def __init__(self) -> None:
        self._bar: tqdm[NoReturn] | None = None

    def start(self, total: int, done: int = 0) -> None:
        """Draw the bar of a study of `total` trials, `done` of which are over."""
        if not sys.stderr.isatty():
            return
        from tqdm import tqdm

        tqdm.monitor_interval = 0  # no thread beside the trials' forks
        tqdm.set_lock(threading.RLock())
        known = os.get_terminal_size(sys.stderr.fileno()).columns > 0  # 0 in a container's, for one
        width: dict[str, Any] = {"dynamic_ncols": True} if known else {"ncols": 80}
        self._bar = tqdm(total=total, initial=done, unit="trial", desc="study", **width, leave=False)

    def say(self, line: str, *, error: bool = False) -> None:
        """Print a line above the bar."""
        file = sys.stderr if error else sys.stdout
        if self._bar is None:
            print(line, file=file, flush=True)
        else:
            self._bar.write(line, file=file)
            file.flush()

    def advance(self, best: float | None = None) -> None:
        """One more trial is over; `best` is the best value so far."""
        if self._bar is not None:
            if best is not None:
                self._bar.set_postfix_str(f"best {best:.4f}", refresh=False)
            self._bar.update()

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
