"""Keeps the user's working directory off `sys.path`, where a `tarfile.py` of theirs would stand in for Python's own.

`python -m` puts the working directory first; `-P` doesn't. Imports only what the interpreter has loaded anyway.
"""

import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # noqa: PTH100, PTH120


def command(module: str, *words: str) -> list[str]:
    """The command that runs a module of ours in a process of its own, isolated from the working directory."""
    return [sys.executable, "-P", "-m", module, *words]


def drop_working_directory() -> None:
    """Take back what `python -m` put first on `sys.path`, unless the package itself lies there."""
    try:
        here = os.getcwd()  # noqa: PTH109 -- pathlib would be imported from there
    except OSError:  # it was removed
        here = ""
    if not sys.flags.safe_path and here != ROOT and sys.path[0] in ("", here):
        del sys.path[0]


def with_package(env: dict[str, str]) -> dict[str, str]:
    """An environment in which the package is found: a checkout that isn't installed is named in PYTHONPATH."""
    if ROOT not in sys.path[1:] and sys.path[:1] == [ROOT]:
        given = env.get("PYTHONPATH")
        env["PYTHONPATH"] = ROOT + (os.pathsep + given if given else "")
    return env
