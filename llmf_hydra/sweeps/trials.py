"""Trials as processes: each is launched from a fork of the sweep's own process, several at once where asked.

The fork composes, checks and starts the worker as a single command would; whatever happens to it, the sweep lives.
"""

import json
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus

from llmf_hydra.config.secrets import masked_text
from llmf_hydra.errors import DONE, FAILED, INTERRUPTED, PRUNED, REFUSED, Refused, RunFailed
from llmf_hydra.runs import folder as runs
from llmf_hydra.runs.processes import OUTPUT
from llmf_hydra.runs.signals import end_with_parent
from llmf_hydra.sweeps.study import Claim

LOOK_AGAIN = 1.0  # seconds


@dataclass(frozen=True)
class Outcome:
    """How a trial ended."""

    code: int
    out: str  # the run's folder
    reason: str = ""
    report: str = ""  # the whole of a refusal

    @property
    def status(self) -> str:
        """done, refused, killed, pruned or failed."""
        return "refused" if self.code == REFUSED else runs.ended_as(self.code)

    def values(self) -> dict[str, float]:
        """What the trial reached: each objective's metric that it logged, and figures of its manifest."""
        folder = Path(self.out)
        if not (folder / runs.MANIFEST).exists():
            return {}
        manifest = runs.read_manifest(folder)
        known = runs.metrics(folder)
        if (peak := manifest.get("peak_memory_mb")) is not None:
            known["peak_memory_mb"] = peak
        if (own := manifest.get("objective")) is not None:
            known["objective"] = known[own["name"]] = own["value"]
        return known


def outcome(result: JobReturn) -> Outcome:
    """What Hydra's launchers return, in our terms."""
    conf = result.hydra_cfg
    out = Path(conf.hydra.runtime.output_dir if conf is not None else str(result.working_dir))
    value: Any = result._return_value  # the public property raises a trial's error
    if result.status == JobStatus.COMPLETED:
        return Outcome(DONE, str(out))
    return failure(value, out)


def failure(error: BaseException, out: Path) -> Outcome:
    """A trial that ended with this error."""
    if isinstance(error, Refused):
        return Outcome(REFUSED, str(out), masked_text(str(error.problems[0])), masked_text(error.report()))
    code = error.code if isinstance(error, RunFailed) else FAILED
    if isinstance(error, KeyboardInterrupt):
        code = INTERRUPTED
    reason = masked_text(str(error).splitlines()[0] if str(error) else type(error).__name__)
    log = out / OUTPUT
    told = f"{reason} (see {log})" if code not in (PRUNED, INTERRUPTED) and log.exists() else reason
    return Outcome(code, str(out), told)


class Forked:
    """A trial that runs in a fork of this process."""

    def __init__(self, run: Callable[[], Outcome], out: Path):
        self._out = out
        self.answer, theirs = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.answer)
            _be_the_trial(run, theirs)
        os.close(theirs)

    def send(self, number: int) -> None:
        """Pass a signal on; the trial passes it to its worker."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def outcome(self) -> Outcome:
        """How it ended; waits for that."""
        with os.fdopen(self.answer, "rb") as pipe:
            told = pipe.read()
        _, status = os.waitpid(self.pid, 0)
        if told:
            return Outcome(**json.loads(told))
        code = os.waitstatus_to_exitcode(status)
        return Outcome(FAILED, str(self._out), f"its launcher ended with exit code {code}")


def _be_the_trial(run: Callable[[], Outcome], answer: int) -> None:
    """In the fork: run, answer, and end without the cleaning up that is the parent's."""
    code = 1
    try:
        os.setpgrp()  # Ctrl-C reaches the sweep alone, which passes it on once
        end_with_parent()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, _interrupt)
        told = json.dumps(asdict(run())).encode()
        with os.fdopen(answer, "wb") as pipe:
            pipe.write(told)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


class Interrupts:
    """Ctrl-C and SIGTERM within, as KeyboardInterrupt and remembered.

    Python drops an exception that a signal's handler raises inside a destructor, or in what follows a fork: `check`
    raises it again.
    """

    asked = False

    def __enter__(self) -> "Interrupts":
        self._before = {
            number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raise KeyboardInterrupt if it was asked for."""
        if self.asked:
            raise KeyboardInterrupt

    def _on_signal(self, number: int, frame: object) -> None:
        self.asked = True
        raise KeyboardInterrupt


class Pool:
    """Several trials at once; what is said of a trial is its slot, from 0, which names its share of the machine."""

    def __init__(self, size: int):
        self._free = list(range(size))
        self._running: dict[int, tuple[Claim, int, Forked]] = {}  # by the pipe of the answer

    @property
    def slot(self) -> int | None:
        """The next free slot, if there is one."""
        return min(self._free) if self._free else None

    def __bool__(self) -> bool:
        return bool(self._running)

    def start(self, claim: Claim, run: Callable[[], Outcome], out: Path) -> None:
        """Start a trial in the next free slot."""
        slot = min(self._free)
        self._free.remove(slot)
        forked = Forked(run, out)
        self._running[forked.answer] = claim, slot, forked

    def ended(self) -> Iterator[tuple[Claim, Outcome]]:
        """The trials that have ended; waits for one, but not long."""
        poller = select.poll()
        for file in self._running:
            poller.register(file, select.POLLIN | select.POLLHUP)
        for file, _ in poller.poll(LOOK_AGAIN * 1000):
            claim, slot, forked = self._running.pop(file)
            self._free.append(slot)
            yield claim, forked.outcome()

    def send(self, number: int) -> None:
        """Pass a signal to all trials."""
        for _, _, forked in self._running.values():
            forked.send(number)
