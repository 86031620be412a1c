"""Results kept on disk by their digest: made once, whole or not at all, whoever else starts at once."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock


def kept(root: Path, digest: str, make: Callable[[Path], None], again: bool = False) -> tuple[Path, bool]:
    """The folder `root/digest`, made by `make(folder)` if it is not there; and whether it was found.

    `make` works in a folder of its own, which gets the final name only when everything is on the disk: a
    process that is killed leaves nothing that a later run would use.
    """
    folder = root / digest
    if folder.is_dir() and not again:
        return folder, True
    root.mkdir(parents=True, exist_ok=True)
    before = _made(folder)
    with FileLock(root / f"{digest}.lock"):
        if folder.is_dir() and (not again or _made(folder) != before):
            return folder, True  # another process made it while this one waited
        for left in root.glob(f".{digest}-*"):  # of a process that was killed: the lock is ours
            shutil.rmtree(left, ignore_errors=True)
        made = Path(tempfile.mkdtemp(prefix=f".{digest}-", dir=root))
        try:
            make(made)
            _to_disk(made)
            _replace(made, folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    return folder, False


def _made(folder: Path) -> int | None:
    return folder.stat().st_ino if folder.is_dir() else None


def _replace(made: Path, folder: Path) -> None:
    """Give `made` its name. A folder of that name goes aside first; who reads it may go on reading."""
    if folder.is_dir():
        aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        folder.rename(aside / "old")
        made.rename(folder)
        shutil.rmtree(aside, ignore_errors=True)
    else:
        made.rename(folder)
    _sync(folder.parent)


def _to_disk(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
