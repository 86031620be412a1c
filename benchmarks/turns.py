"""Processes that take turns: one steps while the others wait, so that all are measured in the same minutes.

A process waits for a line on its standard input, works until its step ends, and tells what the step took; see `Steps`.
`Runner` is the other side of it. Nothing of ours is imported here: LLaMA-Factory's environment hasn't got it.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parents[1]
THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "DISABLE_VERSION_CHECK": "1"}
SAID = 2000  # characters that are shown of what a process said before it failed


class Runner:
    """A process that takes turns, as the one that times it sees it."""

    def __init__(self, words: Sequence[str], env: Mapping[str, str] = {}):
        """Start `python -m ...` words, with one thread."""
        self._said: IO[str] = tempfile.TemporaryFile("w+", encoding="utf8")  # noqa: SIM115 -- `end` closes it
        self.words = list(words)
        self.process = subprocess.Popen(
            self.words, cwd=ROOT, env={**os.environ, **THREAD, **OFFLINE, **env}, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said,
        )  # fmt: skip

    def hear(self) -> dict[str, Any]:
        """What it tells next. Raises RuntimeError with its last words where it has ended."""
        line = self.process.stdout.readline() if self.process.stdout else ""
        if line:
            return json.loads(line)
        self._said.seek(0)
        told = self._said.read()[-SAID:]
        raise RuntimeError(f"{' '.join(self.words)} ended with {self.process.wait()}:\n{told}")

    def turn(self) -> dict[str, Any]:
        """Have it do its next piece of work; returns what it tells of it."""
        assert self.process.stdin is not None  # a pipe
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return self.hear()

    def end(self) -> None:
        """End it, whatever it does."""
        self.process.kill()
        self.process.wait()
        self._said.close()


class Steps:
    """The process's own side: it tells what came before the first step, what each step took, and what came after.

    `s` is by the clock; on a CPU `cpu_s` is what the process's one thread computed, which neighbours on the machine
    disturb less.
    """

    def __init__(self) -> None:
        # What trainers print must not be taken for what is told.
        self._out = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)
        self._since = (0.0, 0.0)

    def run(self, trainer: Any, facts: Mapping[str, Any]) -> None:
        """Train by turns; `facts` are told first."""
        trainer.add_callback(self.callback())
        self.begin(facts)
        trainer.train()
        self.finish()

    def begin(self, facts: Mapping[str, Any]) -> None:
        """Tell that all is loaded, and wait for the first turn."""
        self._tell({"ready": True, **facts})

    def finish(self) -> None:
        """Tell what came after the last step."""
        self._took("after")

    def callback(self) -> Any:
        """For any trainer that is Transformers'."""
        from transformers import TrainerCallback

        steps = self

        class Turn(TrainerCallback):
            begun = False

            def on_step_begin(self, *_: Any, **__: Any) -> None:
                if not self.begun:
                    self.begun = True
                    steps._took("before")

            def on_step_end(self, *_: Any, **__: Any) -> None:
                steps._took("step")

        return Turn()

    def _took(self, part: str) -> None:
        clock, cpu = self._now()
        self._tell({"part": part, "s": clock - self._since[0], "cpu_s": cpu - self._since[1]})

    def _tell(self, told: Mapping[str, Any]) -> None:
        self._out.write(json.dumps(told) + "\n")
        if told.get("part") != "after":
            sys.stdin.readline()
        self._since = self._now()

    def _now(self) -> tuple[float, float]:
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_initialized():
            torch.cuda.synchronize()
        return time.perf_counter(), time.process_time()
