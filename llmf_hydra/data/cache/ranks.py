"""Which of several processes makes the data, and how the others wait for it."""

import os
import time
from collections.abc import Callable
from pathlib import Path

from llmf_hydra.errors import Refused, TrainingFailed

_PATIENCE = 6 * 3600  # seconds; a launcher ends the others long before if the maker dies
_PAUSE = 0.1


def makes_data(shared_file_system: bool) -> bool:
    """Whether this process makes the data.

    The first of all nodes if they share files, else the first of its node.
    """
    return os.environ.get("RANK" if shared_file_system else "LOCAL_RANK", "0") == "0"


def failure_path(root: Path, digest: str) -> Path:
    """Where the maker says that it could not make the data."""
    return root / f"{digest}.failed"


def make_or_wait(
    root: Path, digest: str, maker: bool, make: Callable[[], tuple[Path, bool]]
) -> tuple[Path, bool]:
    """The folder `root/digest`, and whether it was found.

    Made here, or by the process that makes the data.
    """
    failed = failure_path(root, digest)
    if maker:
        failed.unlink(missing_ok=True)
        try:
            return make()
        except Refused as refused:
            root.mkdir(parents=True, exist_ok=True)
            failed.write_text(str(refused), encoding="utf-8")
            raise
    begun, clock = time.time(), time.monotonic()
    while not (root / digest).is_dir():
        if failed.is_file() and failed.stat().st_mtime >= begun - 1:
            raise Refused(failed.read_text(encoding="utf-8").splitlines())
        if time.monotonic() - clock > _PATIENCE:
            raise TrainingFailed(
                f"waited in vain for {root / digest}: does data.data_shared_file_system say the truth?"
            )
        time.sleep(_PAUSE)
    return root / digest, True
