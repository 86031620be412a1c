"""Results kept on disk by their digest: made once, whole or not at all, by one of the processes that want them.

All waiting is for one lock per result. Under it a process finds the result, makes it, or reads beside it what
became of the attempt of its own launch: with `again` the processes that don't make must not take what an earlier
launch left, and where the maker was refused they report the same.
"""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

from filelock import FileLock

from llmf_hydra.data.cache import ranks
from llmf_hydra.errors import Refused, TrainingFailed
from llmf_hydra.runs import disk

_PATIENCE = 6 * 3600  # seconds; a launcher ends the others long before if the maker dies
_PAUSE = 0.1


def obtain(
    root: Path,
    digest: str,
    make: Callable[[Path], None],
    *,
    again: bool = False,
    maker: bool = True,
    locks: Path | None = None,
) -> tuple[Path, bool]:
    """The folder `root/digest`, and whether it was found rather than made by `make(folder)`.

    `make` works in a folder of its own, which gets the final name only when everything is on the disk: a process
    that is killed leaves nothing that a later run would use. Only a `maker` makes; the others wait for the maker of
    their launch. `locks` is the folder of the lock, else `root`. Raises Refused, TrainingFailed.
    """
    folder, locks = root / digest, locks or root
    if folder.is_dir() and not again:
        return folder, True
    root.mkdir(parents=True, exist_ok=True)
    locks.mkdir(parents=True, exist_ok=True)
    before, deadline = _inode(folder), time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        with FileLock(locks / f"{digest}.lock"):
            if _is_ready(folder, locks, again, maker, before):
                if maker:
                    _note_outcome(folder, locks, [])
                return folder, True
            if maker:
                _make(folder, make, locks)
                return folder, False
        time.sleep(_PAUSE)
    raise TrainingFailed(
        f"the process that tokenizes never finished {folder}; if the nodes don't share that file system, "
        "set data.data_shared_file_system=false"
    )


def _is_ready(folder: Path, locks: Path, again: bool, maker: bool, before: int | None) -> bool:
    """Whether the folder may be taken: it is there, and of this launch or any where `again` isn't asked for."""
    if maker:
        return folder.is_dir() and (not again or _inode(folder) != before)  # another made it meanwhile
    outcome = _outcome(folder, locks)
    if outcome is None or outcome["launch"] != ranks.launch():
        return folder.is_dir() and not again
    if outcome["refused"]:
        raise Refused(outcome["refused"])
    return folder.is_dir()


def _make(folder: Path, make: Callable[[Path], None], locks: Path) -> None:
    for left in folder.parent.glob(f".{folder.name}-*"):  # of a process that was killed: the lock is ours
        shutil.rmtree(left, ignore_errors=True)
    made = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    made.chmod(0o777 & ~_umask())  # mkdtemp makes it private
    try:
        make(made)
        disk.flush(made)
        _replace(made, folder)
    except Refused as refused:
        _note_outcome(folder, locks, [str(problem) for problem in refused.problems])
        raise
    finally:
        shutil.rmtree(made, ignore_errors=True)
    _note_outcome(folder, locks, [])


class Outcome(TypedDict):
    """What a maker leaves for the other processes of its launch: why it was refused, or nothing."""

    launch: str
    refused: list[str]


def _outcome_path(folder: Path, locks: Path) -> Path:
    return locks / f"{folder.name}.outcome.json"


def _outcome(folder: Path, locks: Path) -> Outcome | None:
    """What the last maker left: its launch, and why it was refused. Empty where no other process was to know."""
    path = _outcome_path(folder, locks)
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _note_outcome(folder: Path, locks: Path, refused: list[str]) -> None:
    """Tell the other processes of this launch; without any, remove what an earlier launch left."""
    path = _outcome_path(folder, locks)
    if ranks.others_wait():
        path.write_text(json.dumps({"launch": ranks.launch(), "refused": refused}), encoding="utf-8")
    else:
        path.unlink(missing_ok=True)


def _inode(folder: Path) -> int | None:
    return folder.stat().st_ino if folder.is_dir() else None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _replace(made: Path, folder: Path) -> None:
    """Give `made` its name. A folder of that name goes aside first; who reads it may go on reading."""
    if folder.is_dir():
        aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        folder.rename(aside / "old")
        made.rename(folder)
        shutil.rmtree(aside, ignore_errors=True)
    else:
        made.rename(folder)
    disk.flush_entry(folder.parent)
