"""`llmf status` lists all that is refused as not built yet."""

import pytest

from llmf_hydra.cli.status import built_rows, main, planned, status
from llmf_hydra.config.schema import entries
from llmf_hydra.config.spec import rows
from llmf_hydra.errors import Refused


def test_every_planned_parameter_and_choice_is_listed_once():
    listed = [line.strip() for line in status().splitlines() if line.startswith("  ")]
    parameters = [key for key, entry in entries().items() if entry.param.planned]
    choices = [
        f"{entry.group if entry.is_choice else key}={choice}"
        for key, entry in entries().items()
        for choice in entry.param.planned_choices
    ]
    assert sorted(listed) == sorted(parameters + choices)
    assert sorted(listed) == sorted(planned())


def test_rows_are_counted():
    waiting = [row for row in rows() if row.place.entry.param.planned]
    waiting += [row for row in rows() if row.place.choice in row.place.entry.param.planned_choices]
    assert len(built_rows()) + len(waiting) == 206
    assert status().startswith(f"built {len(built_rows())} of 206 rows")


def test_status_takes_no_words():
    with pytest.raises(Refused, match="takes no words"):
        main(["rlhf"])
