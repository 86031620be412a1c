"""What decides how a process behaves beside its command: a worker is forked only where all of it is the same.

Libraries read much of their environment once, when they are imported. So a worker is forked from a warm server only
if every variable that isn't known to be read later has the server's value, and the sources, limits and cores too.
"""

import hashlib
import json
import os
import resource
import sys
from collections.abc import Mapping
from pathlib import Path

from llmf_hydra import __version__
from llmf_hydra.optional import WITHOUT
from llmf_hydra.paths import PACKAGE
from llmf_hydra.runs import ranks

# Read by our own code when a run starts, or by a shell only; whatever else differs calls for a cold worker.
# CUBLAS_WORKSPACE_CONFIG is read when CUDA starts, which is after the fork.
READ_LATER = (*ranks.VARIABLES, "CUBLAS_WORKSPACE_CONFIG", "PWD", "OLDPWD", "SHLVL", "_", "COLUMNS", "LINES")
READ_LATER_PREFIXES = ("LLMF_", "HYDRA_")  # LLMF_: secrets, the cache and the conf folder among them


def fingerprint(env: Mapping[str, str]) -> str:
    """A digest of all that has to be equal, for a process with this environment, started by this one."""
    parts = {
        "environment": {name: value for name, value in sorted(env.items()) if not _read_later(name)},
        "python": [sys.executable, sys.version],
        "package": [__version__, str(PACKAGE), _sources()],
        "process": _process(),
    }
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _read_later(name: str) -> bool:
    return name in READ_LATER or (name.startswith(READ_LATER_PREFIXES) and name != WITHOUT)


def _sources() -> list[tuple[str, int, int]]:
    """Every file of the package with its size and the time of its last change."""
    files = (file for file in sorted(PACKAGE.rglob("*.*")) if file.suffix != ".pyc" and file.is_file())
    stats = ((str(file), file.stat()) for file in files)
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]


def _process() -> list[object]:
    """What a child inherits from its parent beside the environment."""
    limits = [name for name in dir(resource) if name.startswith("RLIMIT_")]
    umask = os.umask(0o077)
    os.umask(umask)
    return [
        sorted(os.sched_getaffinity(0)),
        os.getpriority(os.PRIO_PROCESS, 0),
        umask,
        [os.getuid(), os.getgid(), os.getgroups()],
        Path("/proc/self/cgroup").read_text(encoding="utf8"),
        {name: resource.getrlimit(getattr(resource, name)) for name in limits},
    ]
