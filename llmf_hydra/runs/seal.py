"""The seal of a checkpoint: the file that is written last and says what else the folder holds.

A folder is whole where each file has the size of its seal, and each small one its content. Folders without a seal,
of an older version or of Transformers, are whole as far as their files show it.
"""

import hashlib
import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llmf_hydra.runs import disk

SEAL = "complete.json"
STATE = "trainer_state.json"  # Transformers finishes a checkpoint with it
VERSION = 1
SMALL = 16 * 2**20  # bytes: larger files are told apart by their size alone


def seal(folder: Path, record: Mapping[str, Any]) -> None:
    """Write the seal of a folder, whose files are all there; on return everything has reached the disk."""
    files = {name: _entry(folder / name) for name in _names(folder)}
    text = json.dumps({"version": VERSION, **record, "files": files}, indent=1)
    (folder / SEAL).write_text(text + "\n", encoding="utf8")
    disk.flush(folder)


def read(folder: Path) -> dict[str, Any]:
    """What the seal of a whole folder records; empty where it has none."""
    file = folder / SEAL
    return json.loads(file.read_text(encoding="utf8")) if file.exists() else {}


def damage(folder: Path, *, contents: bool = True) -> str | None:
    """What is wrong with a checkpoint's folder, or None; `contents=False` looks at names and sizes alone."""
    if not (folder / STATE).is_file():
        return f"it holds no {STATE}"
    if not (folder / SEAL).exists():
        return next(_unsealed_damage(folder), None)
    try:
        files: dict[str, dict[str, Any]] = read(folder)["files"]
    except (OSError, ValueError, KeyError):
        return f"{SEAL} cannot be read"
    found = (_differs(folder / name, name, entry, contents) for name, entry in files.items())
    return next((what for what in found if what is not None), None)


def _names(folder: Path) -> list[str]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return sorted(name for file in files if (name := file.relative_to(folder).as_posix()) != SEAL)


def _entry(file: Path) -> dict[str, Any]:
    size = file.stat().st_size
    return {"size": size} if size > SMALL else {"size": size, "sha256": _digest(file)}


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _differs(file: Path, name: str, entry: Mapping[str, Any], contents: bool) -> str | None:
    if not file.is_file():
        return f"{name} is missing"
    size = file.stat().st_size
    if size != entry["size"]:
        return f"{name} holds {size} of {entry['size']} bytes"
    if contents and "sha256" in entry and _digest(file) != entry["sha256"]:
        return f"{name} has changed since it was written"
    return None


def _unsealed_damage(folder: Path) -> Iterator[str]:
    """What the formats themselves tell: JSON and safetensors know their ends, PyTorch's files are ZIP archives."""
    checks = {".safetensors": is_whole_safetensors, ".pt": zipfile.is_zipfile, ".pth": zipfile.is_zipfile}
    for file in sorted(folder.iterdir()):
        is_whole = _is_json if file.name == STATE else checks.get(file.suffix)
        if is_whole is not None and not is_whole(file):
            yield f"{file.name} is cut off"


def is_whole_safetensors(file: Path) -> bool:
    """Whether a file has the length that its header says."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        try:
            header: dict[str, Any] = json.loads(stream.read(min(length, 100 * 2**20)))
        except ValueError:
            return False
    ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
    return file.stat().st_size == 8 + length + max(ends, default=0)


def _is_json(file: Path) -> bool:
    try:
        json.loads(file.read_text(encoding="utf8"))
    except ValueError:
        return False
    return True
