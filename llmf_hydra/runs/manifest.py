"""What makes a run repeatable, gathered: the code's state, the packages, the machine, digests of files."""

import hashlib
import os
import platform
import sys
from pathlib import Path

from llmf_hydra import __version__, paths
from llmf_hydra.config.schema import Config, entries
from llmf_hydra.config.secrets import masked_tree, masked_word
from llmf_hydra.runs import git
from llmf_hydra.runs.folder import Sweep


def first_manifest(cfg: Config, words: list[str], sweep: Sweep | None) -> dict[str, object]:
    """What the launcher knows of a run before its worker starts."""
    return {
        "job": cfg.job.name,
        "stage": cfg.stage.name,
        "method": cfg.method.name,
        "model": cfg.model.model_name_or_path,
        "data": cfg.data.dataset,
        "command": ["llmf-hydra", *map(masked_word, words)],
        "cwd": str(Path.cwd()),
        "version": __version__,
        "parameters": len(entries()),
        "shipped": [str(folder) for folder in shipped_folders()],
        "sweep": masked_tree(sweep),
        "seeds": {"seed": cfg.training.seed, "data_seed": cfg.training.data_seed},
        "git": git.source(),
        "repository": git.repository(Path.cwd()),
    }


def shipped_folders() -> list[Path]:
    """Where the data that come with the package lie, and the package: a path into them is another one elsewhere."""
    return [paths.data_dir(), paths.PACKAGE.parent]


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> dict[str, object]:
    """Packages and hardware. The worker asks for it: it reads every package's metadata."""
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cores": cores(),
        "memory_gb": round(total_memory() / 2**30, 1),
        "packages": _packages(),
    }


def total_memory() -> int:
    """Main memory of this machine in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def available_memory() -> int:
    """Main memory that a process could still take, in bytes: what is free, or holds files that can be read again."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf8").splitlines()
    except OSError:
        return total_memory()
    known = dict(line.split(":", 1) for line in lines)
    return int(known["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in known else total_memory()


def resident_memory() -> int:
    """Main memory that this process takes now, in bytes; 0 where the system doesn't say."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="utf8").split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def digest_of_file(file: Path) -> str:
    """SHA-256 of a file's bytes."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest_of_text(text: str) -> str:
    """SHA-256 of a text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def _packages() -> dict[str, str]:
    """Installed packages and their versions, from the names of their metadata folders: reading each takes long."""
    folders = [info for path in sys.path if Path(path).is_dir() for info in Path(path).glob("*.dist-info")]
    parts = (info.name.removesuffix(".dist-info").rpartition("-") for info in folders)
    return dict(sorted((name, version) for name, _, version in parts))


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
