"""Digests of model folders. Hashing gigabytes takes long: a file's digest is remembered until the file changes."""

import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path

from llmf_hydra import paths
from llmf_hydra.runs.manifest import digest_of_file, digest_of_text

WEIGHTS = ("*.safetensors",)
_one_at_a_time = threading.Lock()  # who asks second finds what the first has hashed


def digest_of_folder(name: str, patterns: Sequence[str] = WEIGHTS) -> str | None:
    """SHA-256 over names and contents of a folder's files; None for what isn't a local folder."""
    folder = Path(name).expanduser()
    if not folder.is_dir():
        return None
    files = sorted(file for pattern in patterns for file in folder.glob(pattern))
    return digest_of_text("\n".join(f"{file.name}:{_digest(file)}" for file in files))


def _digest(file: Path) -> str:
    """The digest of a file, remembered as long as its size and its time of change stay."""
    with _one_at_a_time:
        known, stat = (
            paths.cache_dir() / "digests" / f"{digest_of_text(str(file.resolve()))}.json",
            file.stat(),
        )
        state = [stat.st_size, stat.st_mtime_ns]
        try:
            saved: dict[str, object] = json.loads(known.read_text(encoding="utf8"))
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
