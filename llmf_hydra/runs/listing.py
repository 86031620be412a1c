"""The runs below a folder, without a look into what they saved."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

from llmf_hydra.runs.folder import MANIFEST, Row, manifest_fault

# What a run saves below its folder: a checkpoint holds dozens of files, and no run.
SAVED = ("final", "checkpoint-", "wandb", "mlruns", ".")


def find(outputs: Path) -> Iterator[Row]:
    """All runs below a folder, oldest first, those of sweeps and those made inside another run's folder too."""
    found = []
    for folder in _run_folders(os.fspath(outputs)):
        try:
            with open(os.path.join(folder, MANIFEST), encoding="utf8") as file:  # noqa: PTH118, PTH123
                content = json.load(file)
        except (OSError, ValueError):
            continue  # a folder that isn't ours, or is just being removed
        if manifest_fault(content) is None:  # else another program's, or damaged
            found.append(Row(Path(folder), content))
    yield from sorted(found, key=lambda row: row.manifest.get("created") or "")


def _run_folders(folder: str) -> Iterator[str]:
    """The folders with a manifest. Paths are text here: a thousand `Path` take longer than the disk."""
    try:
        with os.scandir(folder) as entries:
            held = list(entries)
    except OSError:
        return
    is_run = any(entry.name == MANIFEST for entry in held)
    if is_run:
        yield folder
    for entry in held:
        if not (is_run and entry.name.startswith(SAVED)) and entry.is_dir(follow_symlinks=False):
            yield from _run_folders(entry.path)
