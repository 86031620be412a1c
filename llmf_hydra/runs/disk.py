"""Files that last, and a disk that takes no more: seen whichever library met it, and said in one sentence."""

import errno
import os
import re
import resource
import shutil
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
IN_TEXT = re.compile(r"os error (\d+)|\bcode: (\d+)")  # how libraries written in Rust name it
TORCH_WRITER = re.compile(
    r"inline_container|PytorchStreamWriter|iostream"
)  # PyTorch doesn't say why it couldn't write
LITTLE = 2**20  # bytes: with less, the disk is taken for full


def flush(folder: Path) -> None:
    """Have all files below a folder, and the folders themselves, reach the disk."""
    for entry in [*folder.rglob("*"), folder]:
        flush_entry(entry)


def flush_entry(path: Path) -> None:
    """Have one file, or the names in one folder, reach the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def full(error: BaseException, target: Path) -> str | None:
    """`No space left on device; 12.5 MB are free at /data`, or None where something else went wrong at `target`."""
    code = _errno(error)
    if code is None and isinstance(error, RuntimeError) and TORCH_WRITER.search(str(error)):
        code = _cause(target)
    if code not in FULL:
        return None
    return f"{os.strerror(code)}; {_room(target)}"


def _errno(error: BaseException) -> int | None:
    if isinstance(error, OSError):
        return error.errno
    found = IN_TEXT.search(str(error))
    return int(found[1] or found[2]) if found else None


def _cause(target: Path) -> int:
    """Why a write failed, as far as the system shows it: a limit on the size of a file, else a full disk."""
    limited = resource.getrlimit(resource.RLIMIT_FSIZE)[0] != resource.RLIM_INFINITY
    return errno.EFBIG if limited and shutil.disk_usage(_existing(target)).free > LITTLE else errno.ENOSPC


def _room(target: Path) -> str:
    place = _existing(target)
    free = shutil.disk_usage(place).free
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    capped = limit != resource.RLIM_INFINITY and limit < free
    cap = f", and a file may have {_size(limit)} (ulimit -f)" if capped else ""
    return f"{_size(free)} are free at {place}{cap}"


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())


def _size(count: int) -> str:
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} bytes"
