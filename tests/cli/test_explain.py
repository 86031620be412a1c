"""`llmf explain` answers every word it should, and says who reads a parameter."""

from pathlib import Path

import pytest
from support.readers import reads_of

from llmf_hydra.checks.register import RULES
from llmf_hydra.cli.explain import explain, main
from llmf_hydra.cli.llamafactory.trainer_names import TRAINER_NAMES
from llmf_hydra.config.schema import entries
from llmf_hydra.config.spec import Row, rows
from llmf_hydra.errors import Refused


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row.table}.{row.name}")
def test_every_row_of_the_specification_has_an_answer(row: Row):
    answer = explain(row.name)
    assert f"{row.table}.{row.name}" in answer
    assert f"{row.place.key}: {row.place.entry.param.help}" in answer


@pytest.mark.parametrize("key", entries())
def test_every_key_has_an_answer(key: str):
    entry = entries()[key]
    answer = explain(key)
    assert answer.startswith(f"{key}: {entry.param.help}")
    assert f"type        {entry.type_name}" in answer
    assert ("not built yet: setting it is refused" in answer) == entry.param.planned


def test_facts_of_a_parameter():
    answer = explain("pref_beta")
    for fact in (
        "rlhf.pref_beta",
        "default     0.1",
        "allowed     > 0",
        "stage=dpo or kto",
        "rlhf.pref_beta, float",
    ):
        assert fact in answer


def test_variable():
    assert "API_PORT, read once as the default" in explain("API_PORT")
    assert explain("API_PORT").startswith("serve.port:")


def test_row_that_became_a_choice():
    assert explain("use_galore").startswith("use_galore is the choice optimizer=galore here")
    assert explain("finetuning_type").startswith("finetuning_type is the choice method=CHOICE here")


def test_name_in_two_groups_shows_both():
    answer = explain("seed")
    assert "training.seed:" in answer
    assert "evaluation.seed:" in answer


def test_group_shows_its_choice():
    assert explain("stage").startswith("stage.name:")


@pytest.mark.parametrize("name", TRAINER_NAMES)
def test_names_of_the_trainer(name: str):
    fate = TRAINER_NAMES[name]
    assert (fate.key or fate.why) in explain(name)


def test_choice_shows_what_it_sets():
    assert "use_dora: true" in explain("method=dora")


def test_choice_is_not_built_if_what_it_sets_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    planned = next(
        e for e in entries().values() if e.param.planned and e.type_name == "bool" and not e.param.default
    )
    (tmp_path / planned.group).mkdir()
    (tmp_path / planned.group / "mine.yaml").write_text(f"{planned.name}: true\n")
    monkeypatch.setenv("LLMF_CONF", str(tmp_path))
    assert f"refused: {planned.key}" in explain(f"{planned.group}=mine")


def test_rules_are_told():
    rule = RULES[0]
    for key in rule.keys:
        assert rule.sentence in explain(key)


@pytest.mark.parametrize(
    ("word", "nearest"),
    [
        ("pref_bta", "pref_beta"),
        ("rlhf.pref_bta", "rlhf.pref_beta"),
        ("method=dorra", "dora"),
        ("metod=dora", "method"),
    ],
)
def test_unknown_word_gets_the_nearest(word: str, nearest: str):
    with pytest.raises(Refused, match=f"did you mean '{nearest}'"):
        explain(word)


def test_no_word_is_refused():
    with pytest.raises(Refused, match="which parameter"):
        main([])


READS = """
def of_the_whole(cfg):
    return cfg.rlhf.pref_beta  # cfg.rlhf.pref_ftx is only spoken of

def of_an_argument(options: RlhfConfig, model: ModelConfig):
    return options.pref_loss, f"{model.cache_dir}", "rlhf.simpo_gamma"

def of_a_local_name(cfg):
    data, training = cfg.data, cfg.training
    return lambda: data.dataset

def of_what_is_kept(self):
    return self._tracking.project

def of_something_else(model, training):
    training.seed = model.device_map
"""


def test_reads_are_found_in_the_syntax(tmp_path: Path):
    file = tmp_path / "reads.py"
    file.write_text(READS)
    parameters = {key for key in reads_of(file) if key in entries()}
    assert parameters == {
        "rlhf.pref_beta",
        "rlhf.pref_loss",
        "model.cache_dir",
        "data.dataset",
        "tracking.project",
    }


def test_a_parameter_with_rules_is_not_said_to_act_everywhere():
    answer = explain("neat_packing")
    assert "every stage" not in answer and "pt and sft" in answer and "job=train" in answer
