"""Figures that are kept: a folder per kind of machine, a file per version, and what is read out of them.

    benchmarks/results/amd-epyc-avx512-2-cores/25909bf.json

A version is the commit, with `+` where the package differs from it, or the package's version where there is no git.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from llmf_hydra import __version__
from llmf_hydra.runs import git
from llmf_hydra.runs.manifest import machine

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "transformers", "peft", "trl", "accelerate", "datasets")
VECTORS = {"avx512f": "avx512", "avx2": "avx2"}
FALL = 0.10  # of a kept ratio: what is below that is a slowdown
PEERS = {
    "trl": "TRL",
    "trl_as_shipped": "TRL as shipped",
    "llama_factory": "LLaMA-Factory",
    "llama_factory_as_shipped": "LLaMA-Factory as shipped",
}


@dataclass(frozen=True)
class Ratio:
    """How many times as fast ours is as a peer, of several pairs."""

    median: float
    low: float
    high: float
    pairs: int

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


@dataclass(frozen=True)
class Version:
    """The figures of a version on a kind of machine."""

    machine: str
    version: str
    measured: str  # ISO 8601, UTC
    figures: Mapping[str, Any]

    def ratios(self) -> dict[str, Ratio]:
        """Each ratio by its name, such as `sft beside TRL`; those of steps alone."""
        return dict(_ratios(self.figures))

    def whole(self) -> dict[str, float]:
        """Of whole trainings without the loading, by the same names."""
        beside = self.figures.get("beside", {})
        return {
            f"{_words(part)} beside {PEERS[peer]}": found[peer]["times_whole"]
            for part, found in beside.items()
            for peer in PEERS
            if peer in found
        }


def _ratios(figures: Mapping[str, Any]) -> Iterator[tuple[str, Ratio]]:
    for part, found in figures.get("beside", {}).items():
        for peer in PEERS:
            if peer in found:
                yield f"{_words(part)} beside {PEERS[peer]}", ratio(found[peer]["times"])
    for part, found in figures.get("bare", {}).items():
        shares = found["shares"]
        yield (
            f"{_words(part)} beside bare PyTorch",
            Ratio(found["share"], min(shares), max(shares), len(shares)),
        )
    if "rollouts" in figures:
        yield "PPO's rollouts beside generate", ratio(figures["rollouts"]["of_bare_generate"])


def ratio(found: Mapping[str, Any]) -> Ratio:
    """A ratio as `beside.spread` tells it."""
    return Ratio(found["median"], found["low"], found["high"], found["pairs"])


def _words(part: str) -> str:
    return part.replace("_", " ")


def kind() -> str:
    """The kind of this machine: its processor, the widest vectors that it knows, and how many cores may be used.

    Hosts of virtual machines call several generations by one name.
    """
    known = machine()
    name = re.sub(r"\(r\)|\(tm\)|processor|cpu", "", str(known["cpu"]).lower())
    words = [
        re.sub("[^a-z0-9]+", "-", name).strip("-") or "unknown",
        *_vectors(),
        str(known["cores"]),
        "cores",
    ]
    return "-".join(words)


def _vectors() -> list[str]:
    try:
        flags = set(Path("/proc/cpuinfo").read_text(encoding="utf8").split())
    except OSError:
        return []
    return next(([name] for flag, name in VECTORS.items() if flag in flags), [])


def version() -> str:
    """The version that is measured."""
    source = git.source()
    if source is None:
        return __version__
    return source["commit"][:7] + ("+" if source["diff"] or source["untracked"] else "")


def keep(figures: Mapping[str, Any], folder: Path = RESULTS) -> Path:
    """Write figures down under this machine and version; parts that were measured before stay unless they are here."""
    known = machine()
    file = folder / kind() / f"{version()}.json"
    before = json.loads(file.read_text(encoding="utf8"))["figures"] if file.exists() else {}
    merged = {**before, **figures}
    for part in ("beside", "bare"):
        if part in before and part in figures:
            merged[part] = {**before[part], **figures[part]}
    packages: Any = known["packages"]
    content = {
        "machine": {key: known[key] for key in ("cpu", "cores", "memory_gb", "python")},
        "packages": {name: packages[name] for name in PACKAGES if name in packages},
        "version": version(),
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "figures": merged,
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf8")
    return file


def read(folder: Path = RESULTS) -> dict[str, list[Version]]:
    """Of each kind of machine its versions, the oldest measurement first."""
    found: dict[str, list[Version]] = {}
    for file in sorted(folder.glob("*/*.json")):
        told = json.loads(file.read_text(encoding="utf8"))
        one = Version(file.parent.name, told["version"], told["measured"], told["figures"])
        found.setdefault(one.machine, []).append(one)
    return {name: sorted(versions, key=lambda one: one.measured) for name, versions in found.items()}


def fallen(kept: Mapping[str, Ratio], now: Mapping[str, Ratio]) -> list[str]:
    """A sentence for each ratio that lies more than FALL below the kept one; what wasn't measured now hasn't fallen."""
    return [
        f"{name}: {now[name]}, kept are {before}"
        for name, before in kept.items()
        if name in now and now[name].median < (1 - FALL) * before.median
    ]
