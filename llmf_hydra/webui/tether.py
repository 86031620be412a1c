"""A command that ends with who started it, however that ends: it watches its standard input, which the kernel closes.

python -m llmf_hydra.webui.tether WORDS         runs `llmf-hydra WORDS`
"""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence

from llmf_hydra.runs import isolation

PATIENCE = 10.0  # seconds that the command has to end in


def main(words: Sequence[str]) -> int:
    """Run the command until it ends or standard input is closed; returns its exit code."""
    command = isolation.command("llmf_hydra", *words)
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: process.terminate())
    while process.poll() is None:
        if select.select([0], [], [], 0.2)[0] and not os.read(0, 1024):
            return _ended(process)
    return process.returncode


def _ended(process: "subprocess.Popen[bytes]") -> int:
    process.terminate()
    try:
        return process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.terminate()  # a second signal has the launcher kill its worker
    try:
        return process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
