"""Columns that rewards need are looked for in the rows before anything is answered."""

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest
from datasets import Dataset

from llmf_hydra.errors import Refused
from llmf_hydra.training.context import RunContext
from llmf_hydra.training.rewards.columns import Need, check_columns
from llmf_hydra.training.rewards.scoring import Scorer

SCORER = Scorer(("sums", "held"), 1.0, "outputs/run")
SUMS = [{"answer": "1", "level": 3}, {"answer": "2"}]


def rows(columns: list[dict[str, Any]], source: int = 0) -> Dataset:
    lines = [{"columns": json.dumps(of), "source": source, "row": n} for n, of in enumerate(columns, 1)]
    return Dataset.from_list(lines)


def checked(*needs: Need, held: list[dict[str, Any]] | None = None) -> None:
    context = SimpleNamespace(train=rows(SUMS), eval=None if held is None else rows(held, 1))
    check_columns(cast("RunContext", context), SCORER, needs)


def test_what_is_there_passes() -> None:
    checked()
    checked(Need("numeric", "answer"), Need("share", "level", of_every_row=False), held=SUMS)


@pytest.mark.parametrize(("need", "held", "told"), [
    (Need("numeric", "level"), None, "rlhf.rewards=numeric: compares with the column level, which sums row 2 lacks"),
    (Need("numeric", "answer"), [{"answer": None}], "which held row 1 lacks"),
    (Need("share", "gold", of_every_row=False), None, "asks for the column gold, which no row of sums has"),
    (Need("share", "level", of_every_row=False), [{"answer": "1"}], "level, which no row of held has"),
])  # fmt: skip
def test_what_is_not_is_told_with_the_row_and_what_it_has(
    need: Need, held: list[dict[str, Any]] | None, told: str
) -> None:
    with pytest.raises(Refused, match=told) as refused:
        checked(need, held=held)
    assert "the row has the columns answer" in str(refused.value)
