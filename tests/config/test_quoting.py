"""Values survive both ways of writing them: in YAML and on the command line."""

import shlex
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from llmf_hydra.config.quoting import command_line, hydra_value, yaml_value

PARSER = OverridesParser.create()
TEXT = st.text("ab'\\\"${}:,= #[]-e1.~", max_size=12) | st.text(
    st.characters(exclude_categories=("Cs", "Cc")), max_size=12
)
SCALAR = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT
KEY = st.from_regex(r"[a-zA-Z]([-a-zA-Z_./ :,=]*[a-z])?", fullmatch=True)
VALUE = SCALAR | st.lists(SCALAR, max_size=3) | st.dictionaries(KEY, SCALAR, max_size=3)


def plain(value: Any) -> Any:
    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


def resolved(config: Any) -> Any:
    return OmegaConf.to_container(OmegaConf.create(config), resolve=True)["value"]  # type: ignore[index,call-overload]


@settings(max_examples=60, deadline=None)
@given(VALUE)
def test_value_reads_back(value: Any):
    word = f"key={hydra_value(value)}"
    assert resolved({"value": plain(PARSER.parse_override(word).value())}) == value
    assert resolved(f"value: {yaml_value(value)}") == value
    assert shlex.split(command_line([word]))[3:] == [word]


@pytest.mark.parametrize(
    ("value", "yaml_text", "hydra_text"),
    [
        ("builtin:tiny", "builtin:tiny", "builtin:tiny"),
        ("a,b", '"a,b"', "'a,b'"),
        ("null", '"null"', "'null'"),
        ("no", '"no"', "'no'"),
        ("1e-4", '"1e-4"', "'1e-4'"),
        ("it's", '"it\'s"', r"'it\'s'"),
        ("${x}", '"\\\\${x}"', r"'\${x}'"),
        (None, "null", "null"),
        (5e-05, "5.0e-05", "5.0e-05"),
        (True, "true", "true"),
        ({"a": {"b": "c d"}}, '{a: {b: "c d"}}', "{a:{b:'c d'}}"),
    ],
)
def test_how_values_look(value: Any, yaml_text: str, hydra_text: str):
    assert yaml_value(value) == yaml_text
    assert hydra_value(value) == hydra_text
