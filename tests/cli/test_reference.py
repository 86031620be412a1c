"""The generated pages are current, and the editor's schema accepts and refuses what it should."""

from typing import Any

import jsonschema
import pytest
import yaml

from llmf_hydra.cli.reference import json_schema, parameters_md, schema_text, write
from llmf_hydra.config.schema import entries
from llmf_hydra.config.spec import rows
from llmf_hydra.paths import PACKAGE, conf_dir

DOCS = PACKAGE.parent / "docs"
EXPERIMENT = """
defaults: [override /stage: dpo, override /method: lora, _self_]
rlhf: {pref_beta: 0.2, pref_loss: hinge}
method: {lora_rank: 16, lora_alpha: null, use_dora: true}
data: {dataset: "a,b", dataset_dir: {a: {file_name: a.json}}, val_size: 0.1}
training: {learning_rate: 0.0001, eval_steps: "${training.save_steps}"}
"""


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_pages_are_current():
    stale = "is not current: run `make docs`"
    assert (DOCS / "parameters.md").read_text(encoding="utf-8") == parameters_md(), (
        f"docs/parameters.md {stale}"
    )
    assert (DOCS / "schema.json").read_text(encoding="utf-8") == schema_text(), f"docs/schema.json {stale}"


def test_write_makes_both_pages(tmp_path):
    write(tmp_path / "new")
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == ["parameters.md", "schema.json"]


def test_page_holds_every_parameter_and_every_row():
    lines = parameters_md().splitlines()
    for entry in entries().values():
        assert sum(line.startswith(f"| `{entry.name}` |") and entry.param.help in line for line in lines) >= 1
    for row in rows():
        assert sum(line.startswith(f"| {row.table} | `{row.name}` |") for line in lines) == 1


def test_tables_are_even():
    for table in parameters_md().split("\n\n"):
        if table.startswith("|"):
            assert len({line.replace("\\|", "").count("|") for line in table.splitlines()}) == 1


def test_schema_accepts_an_experiment(validator: jsonschema.Draft202012Validator):
    assert list(validator.iter_errors(yaml.safe_load(EXPERIMENT))) == []


@pytest.mark.parametrize(
    "file", sorted((conf_dir() / "experiment").glob("*.yaml")), ids=lambda file: file.stem
)
def test_schema_accepts_what_is_shipped(validator: jsonschema.Draft202012Validator, file):
    assert list(validator.iter_errors(yaml.safe_load(file.read_text(encoding="utf-8")))) == []


def test_schema_accepts_every_default(validator: jsonschema.Draft202012Validator):
    config: dict[str, dict[str, Any]] = {}
    for entry in entries().values():
        config.setdefault(entry.group, {})[entry.name] = entry.param.default
    assert list(validator.iter_errors(config)) == []


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        ("rlhf: {pref_bta: 0.2}", ["rlhf"]),
        ("rhlf: {pref_beta: 0.2}", []),
        ("rlhf: {pref_beta: 0}", ["rlhf", "pref_beta"]),
        ("rlhf: {pref_beta: strong}", ["rlhf", "pref_beta"]),
        ("rlhf: {pref_loss: hing}", ["rlhf", "pref_loss"]),
        ("method: {lora_rank: 0}", ["method", "lora_rank"]),
        ("method: {lora_rank: null}", ["method", "lora_rank"]),
        ("method: {lora_dropout: 1.0}", ["method", "lora_dropout"]),
        ("stage: {name: null}", ["stage", "name"]),
        ("defaults: dpo", ["defaults"]),
    ],
)
def test_schema_refuses_what_is_wrong(
    validator: jsonschema.Draft202012Validator, wrong: str, where: list[str]
):
    errors = list(validator.iter_errors(yaml.safe_load(wrong)))
    assert [list(error.absolute_path) for error in errors] == [where]
