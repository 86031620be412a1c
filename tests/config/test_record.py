"""A run's config.yaml: read back as it was written, in the layout of older versions too, or refused in a sentence."""

from pathlib import Path

import pytest

from llmf_hydra.config import record
from llmf_hydra.config.migrate import Step, migrated
from llmf_hydra.config.schema import Config
from llmf_hydra.errors import Refused

FIRST_LAYOUT = (
    Path(__file__).parents[1] / "support" / "old_run" / "config.yaml"
)  # of the first version, unchanged
GOOD = record.dump(Config())
WRONG = {
    "a newer layout": (GOOD.replace("schema_version: 2", "schema_version: 99"), "schema_version=99"),
    "no number": (GOOD.replace("schema_version: 2", "schema_version: yes"), "schema_version"),
    "broken YAML": ("data: [", "is not YAML"),
    "a key twice": (GOOD + "data: {}\n", "is not YAML"),
    "a list": ("- data", "holds no config"),
    "no text": ("\ufffe\x00", "is not YAML"),
    "an unknown key": (GOOD.replace("pref_beta", "pref_beto"), "did you mean 'rlhf.pref_beta'?"),
    "an unknown group": (GOOD + "extras: {a: 1}\n", "extras"),
    "a value beside the groups": (GOOD + "extra: 1\n", "extra: is no group of parameters"),
    "a number for true": (GOOD.replace("bf16: false", "bf16: 1"), "write true or false"),
    "another type": (GOOD.replace("pref_beta: 0.1", "pref_beta: strong"), "must be of type float"),
}


def test_a_config_is_read_as_it_was_written(tmp_path: Path) -> None:
    cfg = Config()
    cfg.training.learning_rate, cfg.data.dataset_dir = (
        1e-5,
        {"mine": {"file_name": "a.jsonl", "num_samples": 3}},
    )
    cfg.tracking.run_name, cfg.tracking.project = "1e5", "2020-01-01"
    (tmp_path / "config.yaml").write_text(record.dump(cfg), encoding="utf8")
    again = record.load(tmp_path / "config.yaml")
    assert record.dump(again) == record.dump(cfg)
    assert again.tracking.run_name == "1e5" and again.data.dataset_dir == cfg.data.dataset_dir


def test_the_first_layout_is_still_read() -> None:
    assert record.load(FIRST_LAYOUT).training.max_steps == 60


@pytest.mark.parametrize("name", WRONG)
def test_a_config_that_cannot_be_read_is_refused_in_a_sentence(name: str, tmp_path: Path) -> None:
    text, told = WRONG[name]
    (tmp_path / "config.yaml").write_text(text, encoding="utf8")
    with pytest.raises(Refused, match=r".") as refused:
        record.load(tmp_path / "config.yaml")
    assert told in str(refused.value) and "\n" not in str(refused.value)


def test_a_config_that_is_gone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="cannot be read"):
        record.load(tmp_path / "config.yaml")


def test_renamed_and_removed_keys_are_carried_over_step_by_step() -> None:
    steps = {
        1: Step(renamed={"data.old": "data.newer"}),
        2: Step(renamed={"data.newer": "model.newest"}, removed=("data.gone",)),
    }
    tree = {"data": {"old": 1, "gone": 2, "kept": 3}}
    assert migrated(tree, steps, 3) == {"data": {"kept": 3}, "model": {"newest": 1}}
    assert migrated({"schema_version": 3, "data": {"old": 1}}, steps, 3) == {"data": {"old": 1}}
    assert tree == {"data": {"old": 1, "gone": 2, "kept": 3}}
