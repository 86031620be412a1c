"""The account of a sweep: `sweep.json` for programs, a table for readers."""

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from llmf_hydra.config.secrets import masked_tree, masked_word
from llmf_hydra.runs import folder as runs

ACCOUNT = "sweep.json"


@dataclass(frozen=True)
class Trial:
    """One trial and how it ended; `code` is its exit code, `objective` None where it has none."""

    number: int
    overrides: list[str]
    out: Path
    code: int
    reason: str
    objective: float | None

    @property
    def status(self) -> str:
        return {0: "done", 2: "refused", 130: "killed"}.get(self.code, "failed")

    def outcome(self) -> str:
        """`done 0.6931`, or `failed: out of memory`."""
        if self.code:
            return f"{self.status}: {self.reason}"
        return self.status if self.objective is None else f"{self.status} {self.objective:.4f}"


def write_report(folder: Path, trials: list[Trial]) -> str:
    """Write the sweep's account and return the table, best objective first."""
    ranked = sorted(trials, key=_rank(trials))
    rows = [asdict(trial) | {"status": trial.status, "out": str(trial.out)} for trial in ranked]
    runs.write_json(folder / ACCOUNT, masked_tree({"trials": rows}))
    head = ["trial", "status", "objective", "duration", "overrides", "folder"]
    grid = [trial.overrides for trial in trials]
    return runs.format_table(head, [_cells(trial, varied(trial.overrides, grid)) for trial in ranked])


def varied(overrides: list[str], grid: list[list[str]]) -> list[str]:
    """The words of a trial that aren't the same in all trials; all of them if there is one trial."""
    return [word for word in overrides if not all(word in other for other in grid)] or overrides


def _rank(trials: list[Trial]) -> Callable[[Trial], tuple[bool, float, int]]:
    sign = (
        -1
        if any(manifest.get("direction") == "maximize" for trial in trials if (manifest := _manifest(trial)))
        else 1
    )
    return lambda trial: (trial.objective is None, sign * (trial.objective or 0.0), trial.number)


def _manifest(trial: Trial) -> runs.Manifest | None:
    return runs.read_manifest(trial.out) if (trial.out / runs.MANIFEST).exists() else None


def _cells(trial: Trial, words: list[str]) -> list[str]:
    objective = "-" if trial.objective is None else f"{trial.objective:.4f}"
    manifest = _manifest(trial)
    duration = runs.duration(manifest) if manifest else "-"
    return [
        str(trial.number),
        trial.status,
        objective,
        duration,
        " ".join(map(masked_word, words)),
        os.path.relpath(trial.out),
    ]
