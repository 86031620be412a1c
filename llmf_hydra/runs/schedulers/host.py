"""What a scheduler's own process does on the node it was given: start the run's command there, and pass signals on.

Standard library only, and nothing of this package: Ray sends the class itself to a node whose Python need not have it.
"""

import os
import signal
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path

DEVICES = "CUDA_VISIBLE_DEVICES"  # what a scheduler sets for the GPUs it has reserved
KILL = signal.SIGUSR1  # asks the command to kill the workers: a SIGKILL it could not pass on to them
OWN = ("SLURM_", "SLURMD_")  # begin the variables that describe the node


@dataclass(frozen=True)
class Order:
    """What is to run on a node: a command with its environment and working directory, and the file it prints to."""

    command: list[str]
    env: dict[str, str]
    cwd: str
    log: str
    gpus: bool  # the scheduler reserves GPUs and says which


class Host:
    """Runs one order to its end; `send` may come from another thread, also before the command was started."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._early: list[int] = []

    def ready(self) -> bool:
        """Answers once the scheduler has given this process a node."""
        return True

    def run(self, order: Order) -> int:
        """The command's exit code, -N where signal N ended it."""
        own = {name: value for name, value in os.environ.items() if name.startswith(OWN)}
        if order.gpus and DEVICES in os.environ:
            own[DEVICES] = os.environ[DEVICES]
        with Path(order.log).open("ab") as log:
            with self._lock:
                self._process = subprocess.Popen(
                    order.command,
                    env=order.env | own,
                    cwd=order.cwd,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            for number in self._early:
                self._process.send_signal(number)
            return self._process.wait()

    def send(self, number: int) -> None:
        """Send a signal to the command."""
        if self._process is None:
            self._early.append(number)
        else:
            self._process.send_signal(number)
