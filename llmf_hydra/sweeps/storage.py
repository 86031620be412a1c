"""Where a study is kept: a journal in the sweep's folder, or any storage of Optuna's by its URL."""

import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING

from llmf_hydra.config.secrets import masked_text
from llmf_hydra.errors import Problem, Refused

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

JOURNAL = "study.journal"
JOURNAL_SCHEME = "journal:"
KEY = "hydra.sweeper.storage"


class FileLock:
    """A lock of the kernel's on a file beside the journal: it is gone with the process that held it.

    What a killed process left half written at the journal's end is cut off by the next one that writes.
    """

    def __init__(self, journal: Path):
        self._journal, self._lock = journal, journal.with_name(f"{journal.name}.lock")

    def acquire(self) -> bool:
        self._file = self._lock.open("ab")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        _cut_half_line(self._journal)
        return True

    def release(self) -> None:
        self._file.close()


def _cut_half_line(journal: Path) -> None:
    with journal.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        if end == 0:
            return
        file.seek(end - 1)
        if file.read(1) == b"\n":
            return
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)


def url_of(storage: str | None, folder: Path) -> str:
    """The storage's URL, absolute, so that every process finds it from wherever it runs."""
    if storage is None:
        return f"{JOURNAL_SCHEME}{folder / JOURNAL}"
    if "://" in storage:
        return storage
    path = Path(storage.removeprefix(JOURNAL_SCHEME)).expanduser().absolute()
    if storage.startswith(JOURNAL_SCHEME):
        return f"{JOURNAL_SCHEME}{path}"
    what = "is no URL of a storage"
    raise Refused(
        [
            Problem(
                KEY, masked_text(storage), what, f"write journal:{path}, sqlite:///{path}.db, postgresql://…"
            )
        ]
    )


def open_storage(url: str) -> "BaseStorage":
    """Optuna's storage at a URL; raises Refused where it can't be opened."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)  # each trial is told in our own line
    try:
        if url.startswith(JOURNAL_SCHEME):
            from optuna.storages import JournalStorage
            from optuna.storages.journal import JournalFileBackend

            journal = Path(url.removeprefix(JOURNAL_SCHEME))
            journal.parent.mkdir(parents=True, exist_ok=True)
            return JournalStorage(JournalFileBackend(str(journal), lock_obj=FileLock(journal)))  # type: ignore[arg-type]
        return optuna.storages.get_storage(url)
    except Exception as error:  # SQLAlchemy's, a missing driver, OSError
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        subject = masked_text(url)
        remedy = "name a storage that this machine reaches"
        raise Refused([Problem(KEY, subject, f"cannot be opened: {masked_text(reason)}", remedy)]) from error


def missing(storage: "BaseStorage", name: str) -> Problem:
    """The refusal of a study that the storage doesn't hold."""
    known = [study.study_name for study in storage.get_all_studies()]
    return Problem("study", name, f"is not in the storage, which holds {', '.join(known) or 'none'}")
