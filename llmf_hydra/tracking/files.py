"""The run's own files: `log.jsonl` while it runs, `metrics.json` at its end."""

import errno
import json
import math
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from numbers import Real
from pathlib import Path
from typing import Any

from llmf_hydra.tracking.contract import RunInfo, Tracker

LOG = "log.jsonl"
METRICS = "metrics.json"


class FilesTracker(Tracker):
    """Writes a line a logging step, whole and at once: a killed process leaves every line it wrote."""

    name = "files"

    def start(self, info: RunInfo) -> None:
        """Go on with the folder's log, or begin it. Raises OSError where the folder can't be written to.

        A resumed run does again what comes after its checkpoint, so those lines go.
        """
        self._out = info.out
        self._step = 0
        self._log = info.out / LOG
        self._log.touch()
        _drop_torn_line(self._log)
        if info.logged is not None:
            _go_back(self._log, info.logged)

    def log(self, metrics: dict[str, float], step: int) -> None:
        self._step = step
        self._append({"step": step, **metrics})

    def warn(self, text: str) -> None:
        """Note a warning in the log, also after the end."""
        self._append({"warning": text})

    def finish(self, status: str, summary: dict[str, float], files: list[Path]) -> None:
        write_whole(self._out / METRICS, _json({"step": self._step, **summary}, indent=2) + "\n")

    def _append(self, record: Mapping[str, object]) -> None:
        line = _line(record).encode()
        # One unbuffered write of a whole line: what the kernel has taken outlives the process.
        with self._log.open("ab", buffering=0) as log:
            if log.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def read_log(path: Path) -> list[dict[str, Any]]:
    """The records of a `log.jsonl` in order: those of a step hold "step" and floats, others a "warning".

    What is no record, as a crash of the machine can leave it (a last line without its end, zeros), is left out.
    """
    records = []
    for _, record in _records(path):
        records.append({key: _from_json(key, value) for key, value in record.items()})
    return records


def _records(log: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The lines that hold a record, each with it."""
    for line in log.read_text(encoding="utf8", errors="replace").split("\n")[:-1]:
        with suppress(json.JSONDecodeError):
            record = json.loads(line)
            if isinstance(record, dict):
                yield f"{line}\n", record


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a reader finds the old one or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _drop_torn_line(log: Path) -> None:
    """Cut off a last line that has no end, so that the next one begins on a line of its own."""
    os.truncate(log, log.read_bytes().rfind(b"\n") + 1)


def _go_back(log: Path, logged: Sequence[Mapping[str, Any]]) -> None:
    """Make the log what it was at a checkpoint: as many lines of each step as were `logged` then, and all warnings.

    A line that a full disk didn't take, or a crash spoiled, is made up for.
    """
    missing: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for metrics in logged:
        missing[int(metrics["step"])].append(metrics)
    kept: list[tuple[int, str]] = []
    for line, record in _records(log):
        step: int | None = record.get("step")
        if step is None:
            kept.append((kept[-1][0] if kept else 0, line))
        elif missing[step]:
            missing[step].pop(0)
            kept.append((step, line))
    made = (metrics for of_step in missing.values() for metrics in of_step)
    kept += [(int(metrics["step"]), _line(_numbers(metrics))) for metrics in made]
    write_whole(log, "".join(line for _, line in sorted(kept, key=lambda entry: entry[0])))


def _numbers(metrics: Mapping[str, Any]) -> dict[str, Any]:
    numbers = {key: float(value) for key, value in metrics.items() if isinstance(value, Real)}
    return {"step": int(metrics["step"])} | {key: value for key, value in numbers.items() if key != "step"}


def _line(record: Mapping[str, Any]) -> str:
    return _json({"time": round(time.time(), 3), **record}) + "\n"


def _json(record: Mapping[str, object], indent: int | None = None) -> str:
    """Strict JSON: a number that isn't finite becomes the text that `float` reads back."""
    return json.dumps({key: _to_json(value) for key, value in record.items()}, indent=indent, allow_nan=False)


def _to_json(value: object) -> object:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _from_json(key: str, value: object) -> object:
    return float(value) if isinstance(value, str) and key != "warning" else value
