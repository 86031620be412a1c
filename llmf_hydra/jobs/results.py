"""Results that are written one by one and survive a `kill -9`: a JSON line each, as they come, then a file in order.
Beside them what is told meanwhile, and what is noted at the end.

Stdlib only.
"""

import json
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmf_hydra.runs import folder as runs

log = logging.getLogger(__name__)
EVERY = 5.0  # seconds between lines of progress
Line = dict[str, Any]


class Ledger:
    """The results of numbered items. While it is open they stand in `.NAME.partial`, in the order in which they came.

    Items are numbered from 0 without a gap. `key` describes all that decides the results: those of a partial file with
    another one are not taken over.
    """

    def __init__(self, file: Path, key: str):
        self.file, self._partial = file, file.with_name(f".{file.name}.partial")
        self._lines: dict[int, Line] = self._kept(key)
        draft = self._partial.with_name(f"{self._partial.name}.draft")
        with draft.open("w", encoding="utf8") as out:  # anew: the last line may be half written
            out.write(json.dumps({"key": key}) + "\n")
            out.writelines(_written(number, line) for number, line in self._lines.items())
        draft.replace(self._partial)
        self._out = self._partial.open("a", encoding="utf8")

    def __contains__(self, number: int) -> bool:
        return number in self._lines

    def __len__(self) -> int:
        return len(self._lines)

    def add(self, lines: Mapping[int, Line]) -> None:
        """Note the results of some items; they are on disk when it returns."""
        self._out.writelines(_written(number, line) for number, line in lines.items())
        self._out.flush()
        os.fsync(self._out.fileno())
        self._lines |= lines

    def finish(self) -> list[Line]:
        """Write the file, in the order of the items' numbers and in one stroke; returns its lines."""
        self._out.close()
        lines = [self._lines[number] for number in sorted(self._lines)]
        draft = self._partial.with_name(f"{self._partial.name}.draft")
        with draft.open("w", encoding="utf8") as out:
            out.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
            out.flush()
            os.fsync(out.fileno())
        draft.replace(self.file)
        self._partial.unlink()
        return lines

    def _kept(self, key: str) -> dict[int, Line]:
        if self.file.exists():  # the run was killed after its last result
            return dict(enumerate(read(self.file)))
        if not self._partial.exists():
            return {}
        with self._partial.open(encoding="utf8", errors="replace") as written:
            whole = [line for line in written if line.endswith("\n")]
        try:
            head, *rest = [json.loads(line) for line in whole]
        except ValueError:  # nothing of it is whole
            return {}
        return {entry["number"]: entry["line"] for entry in rest} if head.get("key") == key else {}


def read(file: Path) -> list[Line]:
    """The lines of a file that `finish` has written."""
    return [json.loads(line) for line in file.read_text(encoding="utf8").splitlines()]


class Progress:
    """A line every few seconds, with the speed in `unit`, such as tokens."""

    def __init__(self, total: int, done: int, what: str, unit: str):
        self._total, self._what, self._unit, self._worked = total, what, unit, 0
        self._start = self._told = time.monotonic()
        if done:
            log.info("%d of %d %s were there before", done, total, what)

    def tell(self, done: int, worked: int) -> None:
        """So many are done, with so much more work."""
        self._worked += worked
        now = time.monotonic()
        if now - self._told >= EVERY or done == self._total:
            self._told = now
            log.info("%d of %d %s, %.1f %s/s", done, self._total, self._what, self._rate(), self._unit)

    def metrics(self) -> dict[str, float]:
        """The speed of this process; nothing where all was there before."""
        return {f"{self._unit}_per_second": round(self._rate(), 1)} if self._worked else {}

    def _rate(self) -> float:
        return self._worked / max(time.monotonic() - self._start, 1e-9)


def note_metrics(out: Path, metrics: Mapping[str, float], objective: str | None) -> None:
    """Write what `llmf runs` shows and a sweep reads; more is better of the metric `objective`."""
    runs.write_json(out / runs.METRICS, metrics)
    if objective is not None:
        value = {"name": objective, "value": metrics[objective]}
        runs.update_manifest(out, objective=value, direction="maximize")


def _written(number: int, line: Line) -> str:
    return json.dumps({"number": number, "line": line}, ensure_ascii=False) + "\n"
