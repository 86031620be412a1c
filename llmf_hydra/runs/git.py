"""The state of the code in git: the package's own source with its changes, and the user's repository without them."""

import subprocess
from pathlib import Path
from typing import TypedDict

from llmf_hydra.config.secrets import masked_text
from llmf_hydra.paths import PACKAGE, conf_dir, sweeps_dir


class Source(TypedDict):
    """What the package ran as."""

    commit: str
    branch: str
    diff: str  # against the commit, of the package and its shipped folders alone
    untracked: list[str]


class Repository(TypedDict):
    """The repository the command was started in. Its changes are the user's own, so they are not recorded."""

    commit: str
    clean: bool  # nothing is changed, added or untracked outside `outputs`


def source(package: Path = PACKAGE) -> Source | None:
    """The state of the package's source; None where it is installed and not run from a checkout."""
    commit = _git(package, "rev-parse", "HEAD")
    # Installed below someone's repository (in its .venv), the package is no part of it.
    if commit is None or _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    folders = [
        package,
        *(folder for folder in (conf_dir(), sweeps_dir()) if package.parent in folder.parents),
    ]
    ours = ["--", *map(str, folders)]
    return {
        "commit": commit.strip(),
        "branch": (_git(package, "rev-parse", "--abbrev-ref", "HEAD") or "").strip(),
        "diff": masked_text(_git(package, "diff", "HEAD", *ours) or ""),
        "untracked": (_git(package, "ls-files", "--others", "--exclude-standard", *ours) or "").splitlines(),
    }


def repository(folder: Path) -> Repository | None:
    """Commit of the repository a folder lies in, and whether it is clean; None where there is none."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    changes = _git(folder, "status", "--porcelain", "--", ":(top)", ":(exclude)outputs")
    return {"commit": commit.strip(), "clean": changes == ""}


def top(folder: Path) -> Path | None:
    """The uppermost folder of the repository a folder lies in; None where there is none."""
    found = _git(folder, "rev-parse", "--show-toplevel")
    return None if found is None else Path(found.strip())


def content(folder: Path, commit: str, path: str) -> str | None:
    """A file as it is in a commit; None where commit or file is unknown here. `path` is relative to the top."""
    return _git(folder, "show", f"{commit}:{path}")


def _git(folder: Path, *words: str) -> str | None:
    """What git prints, or None where it fails or is missing."""
    command = ["git", "-C", str(folder), *words]
    try:
        done = subprocess.run(command, capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="replace") if done.returncode == 0 else None
