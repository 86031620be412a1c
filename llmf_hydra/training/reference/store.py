"""Log-probabilities of a reference on disk, so that each input is computed once for all runs and trials.

A folder belongs to one reference, and holds its values in buckets by the digest of their input:

    NN.npz    `units` (n, 16) uint8, digests of the inputs; `values` (n, width) float32
    NN.lock   held by the process that computes what is missing in that bucket

A file is replaced whole, by the process that holds its lock. Processes that want the same values take different
buckets, and read what the others have computed.
"""

import logging
import os
import tempfile
import time
import zipfile
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

log = logging.getLogger(__name__)

BUCKETS = 32  # at most so many processes compute at once
PAUSE = 0.1  # seconds until a bucket that another process holds is looked at again
SAVE_EVERY = 20.0  # seconds of computing that a killed process may lose
SIZE = 16  # bytes of a unit
Unit = bytes  # digest of an input
Values = dict[Unit, np.ndarray]


class ReferenceStore:
    """Values by unit, shape (width,) each; without a folder they are in memory only."""

    def __init__(self, folder: Path | None):
        self.folder = _usable(folder)
        self._known: Values = {}
        self._unwritten: Values = {}
        self._read_buckets: set[int] = set()
        self._last_written = time.monotonic()

    def get(self, unit: Unit) -> np.ndarray | None:
        """The values of a unit; None where it isn't known."""
        bucket = _bucket(unit)
        if unit not in self._known and bucket not in self._read_buckets:
            self._read_buckets.add(bucket)
            self._known |= self._read(bucket)
        return self._known.get(unit)

    def put(self, unit: Unit, values: np.ndarray) -> None:
        """Add values that were computed; now and then all that is new is written."""
        self._known[unit] = values
        if self.folder is None:
            return
        self._unwritten[unit] = values
        if time.monotonic() - self._last_written > SAVE_EVERY:
            self.flush()

    def flush(self) -> None:
        """Write what is new, apart from buckets in which another process is computing."""
        for bucket, units in _by_bucket(self._unwritten).items():
            with self._claimed(bucket) as ours:
                if ours:
                    self._write(bucket, self._read(bucket) | {unit: self._unwritten[unit] for unit in units})
                    for unit in units:
                        del self._unwritten[unit]
        self._last_written = time.monotonic()

    def complete(
        self,
        units: Collection[Unit],
        compute: Callable[[Unit], np.ndarray],
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Have the values of all units: compute what no process has computed, or is computing. `stop` ends it early."""
        left = _by_bucket(unit for unit in units if self.get(unit) is None)
        while left and not stop():
            claimed = False
            for bucket in _from_own_place(left):
                with self._claimed(bucket) as ours:
                    if ours:
                        claimed = True
                        self._fill(bucket, left.pop(bucket), compute, stop)
            if not claimed:
                time.sleep(PAUSE)

    def _fill(
        self, bucket: int, units: list[Unit], compute: Callable[[Unit], np.ndarray], stop: Callable[[], bool]
    ) -> None:
        found, fresh, saved = self._read(bucket), 0, time.monotonic()
        for unit in units:
            if stop():
                break
            if unit not in found:
                found[unit] = compute(unit)
                fresh += 1
            if time.monotonic() - saved > SAVE_EVERY:
                self._write(bucket, found)
                saved = time.monotonic()
        if fresh:
            self._write(bucket, found)
        self._known |= found

    @contextmanager
    def _claimed(self, bucket: int) -> Iterator[bool]:
        """Whether this process alone may write the bucket, within."""
        if self.folder is None:
            yield True
            return
        lock = FileLock(self._file(bucket, "lock"))
        try:
            lock.acquire(blocking=False)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def _read(self, bucket: int) -> Values:
        if self.folder is None:
            return {}
        try:
            with np.load(self._file(bucket, "npz"), allow_pickle=False) as saved:
                units, values = saved["units"], saved["values"]
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):  # damaged: it is computed anew
            return {}
        return {unit.tobytes(): value for unit, value in zip(units, values, strict=True)}

    def _write(self, bucket: int, values: Values) -> None:
        """Replace a bucket's file. The values of a disk that is full stay in memory."""
        if self.folder is None:
            return
        units = np.frombuffer(b"".join(values), np.uint8).reshape(-1, SIZE)
        draft: Path | None = None
        try:
            handle, name = tempfile.mkstemp(dir=self.folder, prefix=f".{bucket:02d}.")
            draft = Path(name)
            with os.fdopen(handle, "wb") as file:
                np.savez(file, units=units, values=np.stack(list(values.values())))
                file.flush()
                os.fsync(file.fileno())
            draft.chmod(0o644)  # mkstemp's own mode would hide it from a group
            draft.replace(self._file(bucket, "npz"))
        except OSError as error:
            log.warning("reference: what was computed isn't kept for other runs: %s", error)
            if draft is not None:
                draft.unlink(missing_ok=True)

    def _file(self, bucket: int, ending: str) -> Path:
        assert self.folder is not None  # callers ask
        return self.folder / f"{bucket:02d}.{ending}"


def _usable(folder: Path | None) -> Path | None:
    """The folder, made where it isn't there yet; None where it can't be written to."""
    if folder is None:
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        log.warning("reference: nothing is kept for other runs: %s", error)
        return None
    if not os.access(folder, os.W_OK | os.X_OK):
        log.warning("reference: nothing is kept for other runs: %s may not be written to", folder)
        return None
    return folder


def _bucket(unit: Unit) -> int:
    return unit[0] % BUCKETS


def _by_bucket(units: Collection[Unit] | Iterator[Unit]) -> dict[int, list[Unit]]:
    buckets: dict[int, list[Unit]] = defaultdict(list)
    for unit in units:
        buckets[_bucket(unit)].append(unit)
    return dict(buckets)


def _from_own_place(buckets: Collection[int]) -> list[int]:
    """In their order, but beginning elsewhere in each process, so that several seldom meet."""
    ordered, start = sorted(buckets), os.getpid() * 7
    first = start % len(ordered)
    return ordered[first:] + ordered[:first]
