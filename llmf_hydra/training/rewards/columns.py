"""The columns of the rows that rewards need, looked for before anything is answered."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from datasets import Dataset

from llmf_hydra.config.rewards.items import KEY
from llmf_hydra.errors import Problem, Refused
from llmf_hydra.training.context import RunContext
from llmf_hydra.training.rewards.protocol import Row
from llmf_hydra.training.rewards.scoring import Scorer


@dataclass(frozen=True)
class Need:
    """A column that a reward can't do without: in every row of a dataset, or in one at least."""

    label: str
    column: str
    of_every_row: bool = True


def check_columns(context: RunContext, scorer: Scorer, needs: Sequence[Need]) -> None:
    """Raise Refused, with the row, where a column isn't there."""
    every = any(need.of_every_row for need in needs)
    for rows in _datasets(context) if needs else ():
        waiting = {need for need in needs if not need.of_every_row}
        have: dict[str, Any] = {}
        source = ""
        for row in cast("Iterable[Row]", rows.select_columns(["columns", "source", "row"])):
            have, source = json.loads(row["columns"]), scorer.source(row)
            for need in needs:
                if have.get(need.column) is not None:
                    waiting.discard(need)
                elif need.of_every_row:
                    what = f"compares with the column {need.column}, which {scorer.place(row)} lacks"
                    raise _refused(need, what, "{kind: ..., column: NAME}", have)
            if not waiting and not every:
                break
        for need in waiting if source else ():
            what = f"asks for the column {need.column}, which no row of {source} has"
            raise _refused(need, what, "an argument that it has", have)


def _refused(need: Need, what: str, remedy: str, have: dict[str, Any]) -> Refused:
    names = ", ".join(have) or "none"
    return Refused(
        [Problem(KEY, need.label, what, f"name another, {remedy}; the row has the columns {names}")]
    )


def _datasets(context: RunContext) -> Iterator[Dataset]:
    held: Sequence[Any] = list(context.eval.values()) if isinstance(context.eval, dict) else [context.eval]
    yield from (rows for rows in [context.train, *held] if rows is not None)
