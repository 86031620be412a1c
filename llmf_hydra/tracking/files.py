"""The run's own files: `log.jsonl` while it runs, `metrics.json` at its end."""

import json
import math
import os
import tempfile
import time
from pathlib import Path
from typing import Any, ClassVar

from llmf_hydra.tracking.contract import RunInfo, Tracker

LOG = "log.jsonl"
METRICS = "metrics.json"


class FilesTracker(Tracker):
    """Writes a line a logging step, whole and at once, so that a killed process leaves every line it wrote."""

    name: ClassVar[str] = "files"

    def start(self, info: RunInfo) -> None:
        """Go on with the folder's log, or begin it. Raises OSError where the folder can't be written to."""
        self._out = info.out
        self._step = 0
        self._log = os.open(info.out / LOG, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        _drop_torn_line(self._log)

    def log(self, metrics: dict[str, float], step: int) -> None:
        self._step = step
        self._append({"step": step, **metrics})

    def warn(self, text: str) -> None:
        """Note a warning in the log."""
        self._append({"warning": text})

    def finish(self, status: str, summary: dict[str, float], files: list[Path]) -> None:
        os.close(self._log)
        write_whole(self._out / METRICS, _json({"step": self._step, **summary}, indent=2) + "\n")

    def _append(self, record: dict[str, Any]) -> None:
        line = _json({"time": round(time.time(), 3), **record}) + "\n"
        # One write of a whole line: what the kernel has taken outlives the process.
        os.write(self._log, line.encode())


def read_log(path: Path) -> list[dict[str, Any]]:
    """The records of a `log.jsonl` in order: those of a step hold "step" and floats, others a "warning".

    A last line without its end, as a crash of the machine can leave it, is left out. A step that a resumed
    run did again is there twice.
    """
    records = []
    for line in path.read_text(encoding="utf8").splitlines(keepends=True):
        if line.endswith("\n"):
            record = json.loads(line)
            records.append({key: _from_json(key, value) for key, value in record.items()})
    return records


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a reader finds the old one or the new one, never a part."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp's own mode would hide the file from a group
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _drop_torn_line(log: int) -> None:
    """Cut off a last line that has no end, so that the next one begins on a line of its own."""
    written = os.pread(log, os.fstat(log).st_size, 0)
    os.ftruncate(log, written.rfind(b"\n") + 1)


def _json(record: dict[str, Any], indent: int | None = None) -> str:
    """Strict JSON: a number that isn't finite becomes the text that `float` reads back."""
    return json.dumps({key: _to_json(value) for key, value in record.items()}, indent=indent, allow_nan=False)


def _to_json(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _from_json(key: str, value: Any) -> Any:
    return float(value) if isinstance(value, str) and key != "warning" else value
