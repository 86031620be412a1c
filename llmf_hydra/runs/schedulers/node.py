"""A run's workers on the node that a scheduler has given: what the launcher does at home, and nothing else.

    python -P -m llmf_hydra.runs.schedulers.node WORLD RUN_FOLDER [--resume]

Started by `host`, in the environment that all workers get. It ends as its workers do: with their exit code, or by the
signal that ended them. SIGTERM asks them to save, SIGUSR1 kills them; should its host die, they are asked to save.
"""

import os
import signal
import sys

from llmf_hydra.runs import processes, signals


def main(words: list[str]) -> int:
    """Run the workers of a folder to their end; returns their exit code, -N where signal N ended them."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])  # Ray and submitit start it with SIGINT blocked
    signals.end_with_parent()
    return processes.run_on_node(words[1:], int(words[0]))


if __name__ == "__main__":
    code = main(sys.argv[1:])
    if code < 0:
        if code != -signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)
