"""The demo is chosen while no dataset is named and leaves nothing on a user's own data; shipped values give way."""

import json
from pathlib import Path

import pytest
import yaml
from hydra.types import RunMode
from omegaconf import OmegaConf
from support.command_line import Cli
from support.job_runs import refused
from support.stage_runs import composed

from llmf_hydra.config import compose
from llmf_hydra.config.groups.model import ModelConfig
from llmf_hydra.config.schema import Config, entries, value_at
from llmf_hydra.paths import conf_dir

FOLLOWS_THE_STAGE = {"stage.name", "data.dataset", "model.model_name_or_path", "model.compute_dtype",
                     "model.disable_gradient_checkpointing"}  # fmt: skip


def differences(cfg: Config) -> dict[str, object]:
    """What isn't the schema's default, apart from the environment's word and what these tests choose themselves."""
    keys = [
        key for key, entry in entries().items() if entry.param.env is None and key not in FOLLOWS_THE_STAGE
    ]
    return {key: value_at(cfg, key) for key in keys if value_at(cfg, key) != entries()[key].param.default}


@pytest.mark.parametrize("stage", [file.stem for file in (conf_dir() / "demo").glob("*.yaml")])
def test_nothing_of_the_demo_reaches_data_of_ones_own(stage: str, tmp_path: Path) -> None:
    demo = composed(f"stage={stage}")
    own = composed(f"stage={stage}", "data.dataset=mine.jsonl")
    assert demo.data.dataset and demo.training.max_steps > 0 and demo.data.val_size > 0
    assert differences(own) == differences(composed(f"stage={stage}", "data.dataset=other.jsonl"))
    of_the_demo = {"data.cutoff_len", "data.val_size"} | {
        f"training.{name}"
        for name in ("max_steps", "eval_steps", "eval_strategy", "save_steps", "plot_loss", "logging_steps")
    }
    assert not of_the_demo & differences(own).keys()


def test_a_file_and_a_saved_dataset_name_data_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.yaml").write_text("{dataset: mine.jsonl}")
    monkeypatch.setenv("LLMF_CONF", str(tmp_path))
    assert composed("stage=dpo", "data=mine").training.max_steps == -1
    assert composed("stage=dpo", "data.tokenized_path=kept").training.max_steps == -1
    assert composed("stage=dpo", "demo=dpo", "data.dataset=mine.jsonl").training.max_steps == 60  # asked for


def test_the_command_line_leaves_the_demo_out(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
    shown = cli("stage=dpo", "model=tiny", "data.dataset=mine.jsonl", "--cfg", "job")
    config = yaml.safe_load(shown.stdout)
    assert config["data"]["cutoff_len"] == 2048 and config["data"]["val_size"] == 0.0
    assert config["training"]["max_steps"] == -1 and config["training"]["learning_rate"] == 5e-5
    assert yaml.safe_load(cli("stage=dpo", "--cfg", "job").stdout)["training"]["max_steps"] == 60


def test_shipped_values_give_way_to_what_the_user_sets() -> None:
    own = ["stage=sft", "data.dataset=mine.jsonl"]
    assert composed(*own).training.warmup_ratio == 0.1
    steps = composed(*own, "training.warmup_steps=5")
    assert (steps.training.warmup_steps, steps.training.warmup_ratio) == (5, 0.0)
    assert composed(*own, "training.warmup_ratio=0.2").training.warmup_ratio == 0.2
    assert composed(*own).model.compute_dtype == "float32"
    assert composed(*own, "training.pure_bf16=true").model.compute_dtype is None
    both = composed("stage=sft", "data.eval_dataset=b", "training.warmup_steps=5")
    assert (both.data.val_size, both.training.warmup_ratio) == (0.0, 0.0)


def test_the_demo_holds_out_fewer_rows_where_few_are_kept(cli: Cli, tmp_path: Path) -> None:
    for rows, held_out in ((20, 4), (24, 4), (2, 1), (25, 24)):
        assert composed("stage=sft", f"data.max_samples={rows}").data.val_size == held_out
    assert composed("stage=sft", "data.max_samples=20", "data.val_size=8").data.val_size == 8
    assert composed("stage=sft", "data.max_samples=20", "data.dataset=mine.jsonl").data.val_size == 0
    assert composed("stage=sft", "data.max_samples=20", "training.eval_strategy=no").data.val_size == 0
    assert refused("stage=sft", "data.max_samples=20", "training.eval_strategy=no") == []
    done = cli("stage=sft", "model=tiny", "data.max_samples=20", "training.max_steps=1", "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    counts = json.loads((tmp_path / "run" / "data.json").read_text(encoding="utf8"))
    assert (counts["train_rows"], counts["eval_rows"]) == (16, 4)
    (said,) = refused("stage=sft", "data.max_samples=20", "data.val_size=24")
    assert said.startswith("data.val_size=24: leaves nothing to train on of data.max_samples=20")


def test_what_the_user_says_twice_is_left_to_be_refused() -> None:
    both = composed("stage=sft", "data.dataset=a", "training.warmup_steps=5", "training.warmup_ratio=0.1")
    assert (both.training.warmup_steps, both.training.warmup_ratio) == (5, 0.1)


def test_what_a_shipped_file_says_of_its_model_does_not_reach_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settled_model().disable_gradient_checkpointing
    assert not settled_model("model.model_name_or_path=./mine").disable_gradient_checkpointing
    chosen = settled_model("model=smollm2", "model.model_name_or_path=./mine")
    assert chosen.disable_gradient_checkpointing  # asked for
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\nmodel: {model_name_or_path: ./mine}"
    )
    monkeypatch.setenv("LLMF_CONF", str(tmp_path))
    found = settled_model("experiment=mine")
    assert found.model_name_or_path == "./mine" and not found.disable_gradient_checkpointing


def settled_model(*words: str) -> ModelConfig:
    return composed("stage=sft", *words, model=None).model


def test_values_that_are_set_in_place_give_what_composing_anew_gives() -> None:
    """All of it, Hydra's own part too: `data.val_size` and `training.warmup_ratio` give way to what the user sets."""
    line = compose.CommandLine(["stage=sft", "model=tiny", "data.max_samples=16", "training.warmup_steps=3"])
    found = line.compose()
    words = [str(word) for word in found.hydra.overrides.task]
    assert len(words) > 6, words
    anew = line.loader.load_configuration(line.config_name, words, RunMode.RUN)
    parts = [OmegaConf.to_container(config, resolve=False) for config in (found, anew)]
    assert parts[0] == parts[1] and list(found) == list(anew)
    assert found.hydra.job.override_dirname == anew.hydra.job.override_dirname


def test_a_file_that_changes_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "method" / "mine.yaml"
    file.parent.mkdir()
    monkeypatch.setenv("LLMF_CONF", str(tmp_path))
    for rank in (3, 5):
        file.write_text(f"name: lora\nlora_rank: {rank}\n" + "# longer\n" * rank)
        assert compose.typed(compose.composed(["model=tiny", "method=mine"])).method.lora_rank == rank
