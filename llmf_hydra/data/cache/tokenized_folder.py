"""Whether a run may use the folder `data.tokenized_path`, by a look at the disk. Standard library only: asked before
torch.
"""

import os
from pathlib import Path

from llmf_hydra.errors import Problem

KEY = "data.tokenized_path"
DATA = "data"  # within the user's folder: written beside it under another name, and given this one when whole
SETTINGS = "settings.json"


def is_saved(path: Path) -> bool:
    """Whether there is something to load. A folder that is empty, or that a killed process left, is written anew."""
    if not path.exists():
        return False
    left_over = path.is_dir() and all(
        p.name.startswith(f".{DATA}-") or p.name == f"{DATA}.lock" for p in path.iterdir()
    )
    return not left_over


def content(path: Path) -> Path:
    """The folder within `path` that holds the rows."""
    return path / DATA if (path / DATA).is_dir() else path  # version 1 had no folder of its own


def problem(path: Path) -> Problem | None:
    """Why rows can neither be loaded from the folder nor saved in it; None where they can."""
    try:
        if is_saved(path):
            if (content(path) / SETTINGS).is_file():
                return None
            return Problem(KEY, path, "exists, and holds no tokenized data of ours", "take another folder")
        there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    except OSError as error:
        return Problem(KEY, path, f"cannot be looked into: {error.strerror}", "take another folder")
    if not there.is_dir():
        return Problem(KEY, path, f"{there} is a file", "take another folder")
    if not os.access(there, os.W_OK | os.X_OK):
        return Problem(KEY, path, f"{there} may not be written to", "take another folder")
    return None
