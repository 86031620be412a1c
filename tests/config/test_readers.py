"""Nothing is accepted and ignored: every parameter is read by some file, or declared as not built yet."""

import pytest
from support.readers import readers

from llmf_hydra.config.schema import entries

BUILT = [entry for entry in entries().values() if not entry.param.planned]


@pytest.mark.parametrize("entry", BUILT, ids=lambda entry: entry.key)
def test_a_built_parameter_is_read_somewhere(entry) -> None:
    assert readers(entry), f"{entry.key} is accepted and nothing reads it"


def test_a_choice_that_is_not_built_is_one_of_the_choices() -> None:
    for entry in entries().values():
        assert set(entry.param.planned_choices) <= set(entry.param.choices)
