"""The table of answers with their rewards: a Parquet file for each generation, in the run's folder `completions/`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from llmf_hydra.tracking.contract import Table

FOLDER = "completions"
REWARD = "reward: "  # before the label of each reward, as a column


class CompletionTable:
    """Writes what was generated at a step, `completions/0000012.parquet`, whole or not at all."""

    def __init__(self, run: Path) -> None:
        self._folder = run / FOLDER

    def write(self, step: int, columns: Mapping[str, Sequence[Any]]) -> None:
        """Write the answers of one generation; `step` counts the optimizer steps done before it."""
        self._folder.mkdir(exist_ok=True)
        count = len(next(iter(columns.values())))
        file = self._file(step)
        partial = file.with_suffix(".partial")
        pq.write_table(pa.table({"step": [step] * count, **columns}), partial)
        partial.replace(file)

    def newest(self) -> Table | None:
        """The answers of the last generation."""
        files = sorted(self._folder.glob("*.parquet"))
        return Table(FOLDER, files[-1].absolute(), int(files[-1].stem)) if files else None

    def drop_from(self, step: int) -> None:
        """Take away what a resumed run generates again: what was generated at this step or later."""
        for file in self._folder.glob("*.p*"):
            if file.suffix == ".partial" or int(file.stem) >= step:
                file.unlink()

    def _file(self, step: int) -> Path:
        return self._folder / f"{step:07d}.parquet"
