"""Folders that are built once and then shared by all runs, also when several build at the same moment."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from llmf_hydra.paths import cache_dir


def built_once(name: str, build: Callable[[Path], None]) -> Path:
    """The folder `name` in the cache; if it isn't there, `build` fills a draft that is then moved into place.

    A build that is killed leaves a draft and no folder. Of two builds at once the first to finish counts.
    """
    folder = cache_dir() / name
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        build(draft)
        draft.chmod(0o755)
        draft.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder
