"""The conf folder and the schema are one: choices equal files, every option composes, files hold values only."""

from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from llmf_hydra import paths, refusals
from llmf_hydra.config import compose
from llmf_hydra.config.conf_files import flat_values, shipped_values
from llmf_hydra.config.schema import GROUPS, Config, entries, value_at

CONF = paths.conf_dir()
OPTIONS = sorted((file.parent.name, file.stem) for file in CONF.glob("*/*.yaml"))
SOURCES = CONF.parent / "llmf_hydra"


def composed(*words: str, config_name: str = "config") -> Config:
    return compose.typed(compose.composed(words, config_name))


def alone(*words: str) -> Config:
    """What the words alone are composed to, without the demo, which would win over training=..."""
    return compose.typed(compose.composed(words, implied_too=False))


def test_groups_are_folders_are_files() -> None:
    folders = {folder.name for folder in CONF.iterdir() if folder.is_dir()} - {"experiment", "demo"}
    assert folders == set(GROUPS)
    assert all((SOURCES / "config" / "groups" / f"{group}.py").exists() for group in GROUPS)


@pytest.mark.parametrize("group", ["job", "stage", "method", "optimizer"])
def test_choices_equal_files(group: str) -> None:
    choices = set(entries()[f"{group}.name"].param.choices)
    files = {file.stem for file in (CONF / group).glob("*.yaml")}
    assert choices <= files
    for extra in files - choices:  # a preset: another name for one of the choices with values set
        assert value_at(alone(f"{group}={extra}"), f"{group}.name") in choices


@pytest.mark.parametrize(("group", "folder"), [("job", "jobs"), ("stage", "stages"), ("method", "methods")])
def test_built_choices_are_modules(group: str, folder: str) -> None:
    declared = entries()[f"{group}.name"].param
    modules = {file.stem for file in (SOURCES / folder).glob("*.py")}
    assert set(declared.choices) - set(declared.planned_choices) <= modules
    assert not set(declared.planned_choices) & modules, "built, and still declared as planned"


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=[f"{group}={option}" for group, option in OPTIONS])
def test_every_option_composes_to_what_its_file_says(group: str, option: str) -> None:
    if group == "experiment":
        cfg = alone(f"experiment={option}")
    else:
        cfg = alone(f"{group}=[{option}]" if group == "tracking" else f"{group}={option}")
    for key, value in flat_values(CONF / group / f"{option}.yaml", group).items():
        assert value_at(cfg, key) == value, key


@pytest.mark.parametrize(
    "stage",
    [
        s
        for s in entries()["stage.name"].param.choices
        if s not in entries()["stage.name"].param.planned_choices
    ],
)
@pytest.mark.parametrize("model", ["smollm2", "tiny"])
def test_the_shipped_defaults_have_no_problem(stage: str, model: str) -> None:
    needed = {"ppo": ["rlhf.reward_model=./reward"]}.get(stage, [])  # what has no default
    needed += [] if (CONF / "demo" / f"{stage}.yaml").exists() else ["data.dataset=mine"]
    cfg = composed(f"stage={stage}", f"model={model}", *needed)
    choices = {
        "stage": stage,
        "model": model,
        "demo": stage,
        "training": stage,
        "generation": stage,
        "method": "lora",
        "tracking": ["files"],
    }
    shipped = shipped_values(choices) | dict(word.split("=") for word in needed)
    assert refusals.problems(cfg, shipped, [refusals.CONFIG]) == []


def test_a_file_states_only_what_differs_from_the_schema() -> None:
    repeated = []
    for group, option in OPTIONS:
        for key, value in flat_values(CONF / group / f"{option}.yaml", group).items():
            if not entries()[key].is_choice and value == entries()[key].param.default and option != group:
                repeated.append(f"{group}/{option}.yaml: {key}")
    names = {
        "rlhf/sigmoid.yaml: rlhf.pref_loss",
        "tracking/files.yaml: tracking.files",
    }
    assert set(repeated) <= names  # these are named after the value


def test_files_hold_values_only() -> None:
    for file in CONF.rglob("*.yaml"):
        assert "_target_" not in file.read_text(encoding="utf8"), file


@pytest.mark.parametrize("study", sorted(file.stem for file in paths.sweeps_dir().glob("*.yaml")))
def test_studies_name_parameters_that_exist(study: str) -> None:
    content = yaml.safe_load((paths.sweeps_dir() / f"{study}.yaml").read_text(encoding="utf8"))
    params = content["hydra"]["sweeper"]["params"]
    assert content["hydra"]["mode"] == "MULTIRUN"
    assert params and set(params) <= set(entries())
    assert composed(config_name=study).stage.name == "dpo"


def test_the_record_of_a_config_reads_back_as_itself(tmp_path: Path) -> None:
    from llmf_hydra.config import record

    cfg = composed("stage=dpo", "method.lora_rank=3", "training.learning_rate=3e-6", "data.val_size=0.07")
    (tmp_path / "config.yaml").write_text(record.dump(cfg), encoding="utf8")
    assert record.load(tmp_path / "config.yaml") == cfg
    assert OmegaConf.load(tmp_path / "config.yaml").method.lora_rank == 3
