"""The package's own source: digests of its files, and the text a file had when a run was made."""

import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from llmf_hydra.paths import PACKAGE
from llmf_hydra.runs import git
from llmf_hydra.runs.manifest import digest_of_file, digest_of_text

LENGTH = 16  # hexadecimal digits of a digest: a manifest lists some two hundred files
NOT_SOURCE = {
    "__pycache__",
    "_shipped",
}  # what is in conf/ and data/ stands in the config and among the datasets


def digests(package: Path = PACKAGE) -> dict[str, str]:
    """Each source file of the package, as `runs/folder.py`, with its digest."""
    files = (file for file in sorted(package.rglob("*")) if file.is_file())
    named = ((file.relative_to(package), file) for file in files)
    return {
        name.as_posix(): digest_of_file(file)[:LENGTH]
        for name, file in named
        if not NOT_SOURCE.intersection(name.parts) and not name.name.startswith(".")
    }


def recorded_text(name: str, recorded: dict[str, Any] | None, digest: str) -> str | None:
    """A file as it was in the state of git that a manifest records; None where that can't be told for certain.

    The commit must be in the repository the package lies in now; changes on top of it come from the recorded diff.
    """
    top = git.top(PACKAGE)
    if not recorded or top is None:
        return None
    path = (PACKAGE.relative_to(top) / name).as_posix()
    committed = git.content(PACKAGE, recorded["commit"], path)
    if committed is None:
        return None
    text = _patched(path, committed, _part(recorded["diff"], path))
    return text if text is not None and digest_of_text(text)[:LENGTH] == digest else None


def _part(diff: str, path: str) -> str:
    """What a diff says of one file."""
    parts = re.split(r"^(?=diff --git )", diff, flags=re.MULTILINE)
    return next((part for part in parts if part.startswith(f"diff --git a/{path} ")), "")


def _patched(path: str, text: str, diff: str) -> str | None:
    if not diff:
        return text
    with tempfile.TemporaryDirectory(prefix="llmf-") as folder:
        file = Path(folder) / path
        file.parent.mkdir(parents=True)
        file.write_text(text, encoding="utf8")
        command = ["git", "-C", folder, "apply", "--unsafe-paths", "-"]
        try:
            done = subprocess.run(command, input=diff.encode(), capture_output=True, timeout=10, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return file.read_text(encoding="utf8") if done.returncode == 0 else None
