"""The table of places holds the whole specification, and agrees with the declarations."""

from collections import Counter

import pytest
import yaml
from omegaconf import OmegaConf

from llmf_hydra.cli.llamafactory.trainer_names import RENAMED, THEIR_DEFAULTS, TRAINER_NAMES, TRANSLATED
from llmf_hydra.cli.llamafactory.translate import TRANSLATORS
from llmf_hydra.config.schema import entries
from llmf_hydra.config.spec import ANY, Place, Row, rows, rows_at, rows_named

TABLES = {
    "finetuning": 12,
    "lora": 13,
    "rlhf": 19,
    "freeze": 3,
    "apollo": 10,
    "badam": 8,
    "galore": 7,
    "data": 25,
    "model": 36,
    "generating": 11,
    "evaluation": 8,
    "quantization": 5,
    "export": 9,
    "environment": 34,
    "processor": 6,
}
VALUES = [row for row in rows() if not row.is_variable and not row.place.choice]
VARIABLES = [row for row in rows() if row.is_variable]
CHOICES = [row for row in rows() if row.place.choice]


def test_all_206_rows_are_there_once():
    assert sum(TABLES.values()) == 206
    assert Counter(row.table for row in rows()) == TABLES
    assert len({(row.table, row.name) for row in rows()}) == 206


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row.table}.{row.name}")
def test_place_exists(row: Row):
    assert row.place.key in entries()
    if row.place.choice not in (None, ANY):
        assert row.place.choice in row.place.entry.param.choices


@pytest.mark.parametrize("row", VALUES, ids=lambda row: row.place.key)
def test_row_equals_its_declaration(row: Row):
    entry = row.place.entry
    assert entry.name == row.name
    loaded = OmegaConf.create(f"default: {row.default}").default
    assert entry.param.default == loaded
    choices = [word for word in row.type.split(" | ") if word != "null"]
    if len(choices) > 1 or choices == ["auto"]:
        allowed = entry.param.choices or ("str", "mapping")
        assert set(choices) <= set(allowed)
    else:
        expected = {"dtype": "str"}.get(choices[0], choices[0])
        assert expected == entry.type_name.removesuffix(" or null")


def test_choices_of_the_specification_are_choices_here():
    assert {str(row.place): row.name for row in CHOICES} == {
        "stage=*": "stage",
        "method=*": "finetuning_type",
        "optimizer=adam_mini": "use_adam_mini",
        "optimizer=apollo": "use_apollo",
        "optimizer=badam": "use_badam",
        "optimizer=galore": "use_galore",
    }
    for name in ("stage", "finetuning_type"):
        [row] = rows_named(name)
        assert set(row.type.split(" | ")) <= set(row.place.entry.param.choices)  # and others of our own
        assert row.place.entry.param.default == row.default


@pytest.mark.parametrize("row", VARIABLES, ids=lambda row: row.name)
def test_variable_is_the_default_of_its_place(row: Row):
    assert row.place.entry.param.env == row.name


def test_rows_are_found_by_name_and_by_key():
    assert [row.table for row in rows_named("seed")] == ["evaluation"]
    assert [row.name for row in rows_at("optimizer.name")] == [
        "use_adam_mini",
        "use_apollo",
        "use_badam",
        "use_galore",
    ]


def test_planned_choice_is_not_built():
    assert Place.parse("optimizer=adamw").built
    assert Place.parse("rlhf.pref_beta").built
    planned = [key for key, entry in entries().items() if entry.param.planned]
    assert not any(Place.parse(key).built for key in planned)


def test_names_of_the_trainer_lead_to_parameters():
    assert {fate.key for fate in TRAINER_NAMES.values() if fate.key} <= entries().keys()
    assert set(RENAMED.values()) | THEIR_DEFAULTS.keys() <= entries().keys()
    assert TRANSLATED.keys() <= TRANSLATORS.keys()
    assert all(fate.gone == bool(fate.why and not fate.translated) for fate in TRAINER_NAMES.values())


def test_every_training_argument_of_transformers_has_a_fate(transformers_names: list[str]):
    known = {row.name for row in rows()} | TRAINER_NAMES.keys()
    assert [name for name in transformers_names if name not in known] == []


@pytest.fixture
def transformers_names() -> list[str]:
    """The fields of TrainingArguments, read from the source: importing it would take seconds."""
    import ast
    import importlib.util
    from pathlib import Path

    spec = importlib.util.find_spec("transformers")
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse((Path(spec.origin).parent / "training_args.py").read_text(encoding="utf-8"))
    [cls] = [
        node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "TrainingArguments"
    ]
    fields = [
        node.target.id
        for node in cls.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    ]
    public = [name for name in fields if not name.startswith("_")]
    assert len(public) > 80
    return public


def test_spec_defaults_are_yaml():
    assert all(not isinstance(yaml.safe_load(row.default), dict | list) for row in rows())
