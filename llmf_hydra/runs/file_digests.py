"""Digests of files that may be large: remembered in the cache as long as a file's size and time of change stay."""

import json
import os
import threading
from pathlib import Path
from typing import Any, TypedDict

from llmf_hydra import paths
from llmf_hydra.runs.manifest import digest_of_file, digest_of_text

_one_at_a_time = threading.Lock()  # who asks second finds what the first has hashed


class Files(TypedDict):
    """The files of one dataset, model or adapter: where they lie, and each by its name with its SHA-256."""

    path: str
    files: dict[str, str]


def remembered(file: Path) -> str:
    """SHA-256 of a file's bytes, computed once per state of the file."""
    with _one_at_a_time:
        return _remembered(file)


def _remembered(file: Path) -> str:
    known, stat = paths.cache_dir() / "digests" / f"{digest_of_text(str(file.resolve()))}.json", file.stat()
    state = [stat.st_size, stat.st_mtime_ns]
    try:
        saved: dict[str, Any] = json.loads(known.read_text(encoding="utf8"))
        if saved["state"] == state:
            return str(saved["digest"])
    except (OSError, ValueError, KeyError):  # not there, or half written by a process that died
        pass
    digest = digest_of_file(file)
    known.parent.mkdir(parents=True, exist_ok=True)
    fresh = known.with_suffix(f".{os.getpid()}")
    fresh.write_text(json.dumps({"file": str(file), "state": state, "digest": digest}), encoding="utf8")
    fresh.replace(known)
    return digest
