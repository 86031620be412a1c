"""A flat LLaMA-Factory YAML becomes an experiment: nothing lost, nothing invalid written."""

import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf
from support.command_line import Cli

from llmf_hydra.cli.llamafactory.importer import (
    Imported,
    experiment,
    import_yaml,
    main,
    read,
    read_flat,
    translated,
)
from llmf_hydra.cli.llamafactory.trainer_names import TRAINER_NAMES
from llmf_hydra.cli.llamafactory.translate import CARRIED, IDLE, MISSING, RENAMED, Outcome, translate
from llmf_hydra.config import compose
from llmf_hydra.config.schema import GROUPS, entries
from llmf_hydra.config.spec import rows
from llmf_hydra.errors import Refused

FORTY = Path(__file__).with_name("llamafactory_40.yaml")


def imported(tmp_path: Path, text: str) -> Imported:
    file = tmp_path / "flat.yaml"
    file.write_text(text)
    return read(file)


def outcomes(tmp_path: Path, text: str) -> dict[str, Outcome]:
    """The translation alone, by name: it needs no composition."""
    file = tmp_path / "flat.yaml"
    file.write_text(text)
    return {outcome.name: outcome for outcome in translated(file, read_flat(file))}


def settings(tmp_path: Path, text: str) -> dict[str, Any]:
    return {
        key: value for outcome in outcomes(tmp_path, text).values() for key, value in outcome.settings.items()
    }


@pytest.fixture(scope="module")
def forty(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What the import of the forty keys printed, and the conf folder it wrote to."""
    folder = tmp_path_factory.mktemp("conf")
    return import_yaml(FORTY, folder / "experiment" / "forty.yaml")[1], folder


@pytest.fixture(scope="module")
def forty_composed(forty: tuple[str, Path]) -> dict[str, Any]:
    return composed(["experiment=forty"], forty[1])


def composed(words: list[str], extra: Path | None = None) -> dict[str, Any]:
    """The config Hydra composes of these words, with a folder of experiments beside ours."""
    paths = ["--config-dir", str(extra)] if extra is not None else []
    cfg = compose.composed([*paths, *words], implied_too=False)
    return {group: OmegaConf.to_container(cfg[group], resolve=True) for group in GROUPS}


def test_forty_keys_are_all_carried_and_the_run_may_begin():
    result = read(FORTY)
    assert len(result.outcomes) == 40
    assert {outcome.fate for outcome in result.outcomes} == {CARRIED, RENAMED}
    assert result.idle == {}
    assert result.refused == []


def test_experiment_equals_the_printed_command_line(forty: tuple[str, Path], forty_composed: dict[str, Any]):
    [command] = [
        line for line in forty[0].splitlines() if "stage=dpo" in line and line.startswith("  python")
    ]
    program, words = shlex.split(command)[:3], shlex.split(command)[3:]
    assert program == ["python", "-m", "llmf_hydra"]
    assert composed(words) == forty_composed


def test_forty_values_arrive(forty_composed: dict[str, Any]):
    cfg = forty_composed
    flat = yaml.safe_load(FORTY.read_text())
    for name in flat:
        homes = [row.place for row in rows() if row.name == name and row.table != "evaluation"]
        key = homes[0].key if homes else TRAINER_NAMES[name].key
        if key:
            group, own = key.split(".")
            expected = float(flat[name]) if name in ("learning_rate", "adam_epsilon") else flat[name]
            assert cfg[group][own] == expected, name
    assert cfg["job"]["name"] == "train"
    assert cfg["optimizer"]["name"] == "adamw"
    assert cfg["training"]["warmup_ratio"] == 0.0  # not the preset's: LLaMA-Factory's default is written out


EVERY_FATE = """
stage: dpo
finetuning_type: lora
model_name_or_path: some/model
dataset: mine
lora_rank: 4
kto_chosen_weight: 1.0
output_dir: saves/x
lora_rnak: 8
API_PORT: 9000
hf_hub_token: hf_secret
optim: paged_adamw_8bit
"""


def test_no_key_is_lost(tmp_path: Path):
    flat = yaml.safe_load(EVERY_FATE)
    target = tmp_path / "conf" / "experiment" / "all.yaml"
    (tmp_path / "flat.yaml").write_text(EVERY_FATE)
    _, printed = import_yaml(tmp_path / "flat.yaml", target, partial=True)
    assert list(outcomes(tmp_path, EVERY_FATE)) == list(flat)
    for name in flat:
        assert sum(line.split()[0] == name for line in printed.splitlines() if line.startswith("  ")) == 1
    written = target.read_text()
    for gone in ("output_dir", "lora_rnak", "hf_hub_token", "optim"):
        assert f"#   {gone}  (" in written
    assert "# kto_chosen_weight: 1.0  (acts only with stage=kto)" in written
    assert "hf_secret" not in written + printed


def test_unknown_key_gets_the_nearest_name(tmp_path: Path):
    found = outcomes(tmp_path, "lora_rnak: 8")["lora_rnak"]
    assert (found.fate, found.told) == (MISSING, "no known name; did you mean 'lora_rank'?")


def test_a_name_without_a_home_is_told_with_the_reason_and_whether_the_result_changes():
    wrong = []
    for name, fate in TRAINER_NAMES.items():
        if fate.gone:
            outcome = translate(name, "some value", {})
            expected = (MISSING if fate.missing else IDLE, fate.why, {})
            wrong += [name] if (outcome.fate, outcome.told, outcome.settings) != expected else []
            off = [translate(name, value, {}).fate for value in fate.neutral]
            wrong += [f"{name}, off"] if set(off) != {IDLE} else []
    assert wrong == []
    for name, raw in {
        "enable_thinking": False,
        "use_dft_loss": True,
        "fp8": True,
        "deepspeed": "z3.json",
    }.items():
        assert translate(name, raw, {}).fate == MISSING


@pytest.mark.parametrize(
    ("line", "choice"),
    [
        ("finetuning_type: full", {"method": "full"}),
        ("use_galore: true", {"optimizer": "galore"}),
        ("use_adam_mini: true", {"optimizer": "adam_mini"}),
        ("use_muon: true", {"optimizer": "muon"}),
        ("optim: adafactor", {"optimizer": "adafactor"}),
        ("optim: galore_adamw", {"optimizer": "galore"}),
        ("quantization_bit: 4", {"quantization": "bnb4"}),
        ("quantization_bit: 8", {"quantization": "bnb8"}),
        ("report_to: wandb", {"tracking": ["files", "wandb"]}),
        (
            "report_to: [wandb, mlflow, tensorboard]",
            {"tracking": ["files", "wandb", "mlflow", "tensorboard"]},
        ),
        ("do_predict: true", {"job": "predict"}),
        ("optim: adamw_torch_fused", {}),
        ("optim: paged_adamw_32bit", {}),
        ("report_to: none", {}),
        ("use_badam: false", {}),
        ("do_train: false", {}),
    ],
)
def test_key_picks_the_choice(line: str, choice: dict[str, Any], tmp_path: Path):
    assert settings(tmp_path, line) == choice


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("export_dir: merged", {"job": "export"}),
        ("task: mmlu_test", {"job": "evaluate"}),
        ("template: qwen\ninfer_backend: huggingface", {"job": "chat"}),
        ("do_predict: true\neval_dataset: a", {"job": "predict"}),
        ("dataset: a\nquantization_bit: 4", {"data": "path", "quantization": "bnb4"}),
    ],
)
def test_values_pick_the_choices_that_go_with_them(text: str, choice: dict[str, Any], tmp_path: Path):
    result = imported(tmp_path, f"model_name_or_path: a/b\n{text}")
    assert result.choices == {"stage": "sft", "method": "lora", "model": "path"} | choice
    assert all(f"override /{group}: {name}" in experiment(result) for group, name in choice.items())


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ("learning_rate: 1e-4", "training.learning_rate", 1e-4),
        ("lora_rank: '16'", "method.lora_rank", 16),
        ("lora_target: [q_proj, v_proj]", "method.lora_target", "q_proj,v_proj"),
        ("save_strategy: no", "training.save_strategy", "no"),
        ("warmup_steps: 0.1", "training.warmup_ratio", 0.1),
        ("warmup_steps: 10", "training.warmup_steps", 10),
        ("gradient_checkpointing: false", "model.disable_gradient_checkpointing", True),
        ("neftune_noise_alpha: 0", "training.neftune_noise_alpha", None),
        ("run_name: a b", "tracking.run_name", "a b"),
        ("evaluation_strategy: steps", "training.eval_strategy", "steps"),
        ("quantization_method: hqq\nquantization_bit: 4", "quantization.quantization_bit", 4),
        ("flash_attn: flash_attention2", "model.flash_attn", "fa2"),
        ("flash_attn: sdpa", "model.flash_attn", "sdpa"),
        ("seed: 7", "training.seed", 7),
        ("task: mmlu_test\nseed: 7", "evaluation.seed", 7),
        (
            "dataset_dir: {mine: {file_name: a b.json}}",
            "data.dataset_dir",
            {"mine": {"file_name": "a b.json"}},
        ),
    ],
)
def test_value_is_typed_and_finds_its_place(line: str, key: str, value: Any, tmp_path: Path):
    found = settings(tmp_path, line)[key]
    assert found == value
    assert type(found) is type(value)


def test_packing_off_is_the_default(tmp_path: Path):
    assert settings(tmp_path, "packing: false") == {}
    assert settings(tmp_path, "stage: pt\npacking: false")["data.packing"] is False


def test_training_and_predicting_are_two_runs(tmp_path: Path):
    found = outcomes(tmp_path, "do_train: true\ndo_predict: true")
    assert found["do_train"].settings == {"job": "train"}
    assert found["do_predict"].fate == IDLE


def test_what_is_not_built_is_carried_and_named(tmp_path: Path):
    planned = next(
        e
        for e in entries().values()
        if e.param.planned and e.type_name == "bool" and not e.param.jobs and not e.param.only
    )
    opposite = not planned.param.default
    result = imported(
        tmp_path, f"model_name_or_path: a/b\ndataset: a\n{planned.name}: {str(opposite).lower()}"
    )
    assert result.values[planned.key] is opposite
    assert planned.key in [problem.key for problem in result.refused]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("lora_rank: many", "method.lora_rank=many: is not of type int; it must be >= 1"),
        ("lora_rank: 0", "method.lora_rank=0: must be >= 1"),
        ("lora_rank: null", "method.lora_rank=null: is not of type int"),
        ("stage: orpo", "stage.name=orpo: is not one of pt, sft, rm, ppo, grpo, dpo, kto"),
        ("pref_loss: hing", "did you mean 'hinge'"),
        ("use_dora: perhaps", "method.use_dora=perhaps: is not of type bool"),
        ("bf16: 1", "training.bf16=1: is not of type bool or null; write true or false"),
        ("use_galore: 1", "use_galore=1: is not of type bool; write true or false"),
        ("use_galore: perhaps", "use_galore=perhaps: is not of type bool"),
        (
            "use_galore: true\nuse_apollo: true",
            "use_galore and use_apollo: set optimizer to galore and to apollo",
        ),
        ("lora_rank: 4\nlora_rank: 8", "lora_rank: stands twice"),
        ("- stage", "holds no keys and values"),
        ("a: [", "is not YAML"),
        ("", "holds no keys and values"),
    ],
)
def test_invalid_file_is_refused_and_nothing_written(text: str, problem: str, tmp_path: Path):
    (tmp_path / "flat.yaml").write_text(text)
    with pytest.raises(Refused) as refused:
        import_yaml(tmp_path / "flat.yaml", tmp_path / "experiment" / "flat.yaml")
    assert problem in str(refused.value)
    assert not (tmp_path / "experiment").exists()


def test_all_problems_come_in_one_answer(tmp_path: Path):
    with pytest.raises(Refused) as refused:
        outcomes(tmp_path, "lora_rank: 0\nlearning_rate: fast\npref_loss: no_such")
    assert len(refused.value.problems) == 3


def test_file_is_never_overwritten(tmp_path: Path):
    target = tmp_path / "mine.yaml"
    target.write_text("mine")
    with pytest.raises(Refused, match="is there already; choose another name with --name"):
        main([str(FORTY), "--to", str(tmp_path), "--name", "mine"])
    assert target.read_text() == "mine"


def test_a_name_stays_in_the_folder(cli: Cli, tmp_path: Path):
    for name in ("../../evil", f"{tmp_path}/evil", "a/b", ".."):
        refused = cli("import", str(FORTY), "--name", name, "--to", "conf/experiment")
        assert refused.returncode == 2 and f"--name={name}: is a path, not a name" in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_command_names_the_file_and_how_to_run_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "conf" / "experiment"
    assert main([str(FORTY), "--to", str(folder)]) == 0
    assert (folder / "llamafactory_40.yaml").is_file()
    assert f"--config-dir {tmp_path}/conf experiment=llamafactory_40" in capsys.readouterr().out


def test_missing_file_is_refused(tmp_path: Path):
    with pytest.raises(Refused, match="cannot be read: No such file"):
        read(tmp_path / "no.yaml")


TRAINING = "model_name_or_path: builtin:tiny\nstage: sft\ndo_train: true\ndataset: mine\n"


def test_a_file_that_is_no_training_is_not_imported_as_one(tmp_path: Path):
    cases = {
        "compute_environment: LOCAL_MACHINE\nnum_processes: 2\nuse_cpu: false": "is a config of accelerate",
        "model: a/b\npeft_config: {name: freeze}": "is nested, as LLaMA-Factory's v1 has it",
        "tokens: [a]\nname: x": "model_name_or_path: stands nowhere",
        "model_name_or_path: a/b\nstage: sft\ndo_train: true": "dataset: stands nowhere",
        "model_name_or_path: a/b\nstage: sft\neval_dataset: a": "dataset: stands nowhere",
        "model_name_or_path: a/b\nlearning_rate: 1e-4": "dataset: stands nowhere",
        "model_name_or_path: a/b\nstage: sft\ndo_predict: true": "eval_dataset: stands nowhere",
        "stage: sft\ndo_train: true\ndataset: a": "model_name_or_path: stands nowhere",
    }
    for text, problem in cases.items():
        with pytest.raises(Refused, match=problem):
            imported(tmp_path, text)
    chat = imported(tmp_path, "model_name_or_path: a/b\ntemplate: llama3\ninfer_backend: huggingface")
    assert chat.choices["job"] == "chat" and chat.added == {} and chat.refused == []
    predict = imported(tmp_path, "model_name_or_path: a/b\nstage: sft\ndo_predict: true\neval_dataset: a\n"
                       "predict_with_generate: true\ndataloader_num_workers: 4")  # fmt: skip
    assert predict.acting["data.eval_dataset"] == "a" and not predict.refused
    assert {"training.predict_with_generate", "training.dataloader_num_workers"} <= predict.idle.keys()


def test_a_missing_key_that_changes_the_result_writes_nothing(cli: Cli, tmp_path: Path):
    (tmp_path / "flat.yaml").write_text(
        TRAINING + "use_dft_loss: true\nfp8: true\ndeepspeed: z3.json\ntemplate: qwen99\nlora_rnak: 4\n"
        "ddp_timeout: 180\nenable_thinking: true\nuse_eaft_loss: false\n"
    )
    done = cli("import", "flat.yaml")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "without use_dft_loss, fp8, deepspeed, template, lora_rnak" in done.stderr
    idle, missing = done.stdout.split("without meaning here")[1].split("changes the result and is missing")
    assert {line.split()[0] for line in missing.splitlines() if line.startswith("  ")} >= {"fp8", "template"}
    assert {"ddp_timeout", "enable_thinking", "use_eaft_loss"} <= set(idle.split())
    assert [file.name for file in tmp_path.iterdir()] == ["flat.yaml"]
    rest = cli("import", "flat.yaml", "--partial")
    assert rest.returncode == 0, rest.stderr
    written = (tmp_path / "conf" / "experiment" / "flat.yaml").read_text()
    assert (
        "#   use_dft_loss  (there is no such loss)" in written
        and "qwen99" in written.split("# Changes the")[1]
    )


def test_an_unknown_template_gives_way_to_the_tokenizers_own(tmp_path: Path):
    with_own, without = tmp_path / "with own", tmp_path / "without"
    for folder, config in ((with_own, '{"chat_template": "{{ messages }}"}'), (without, "{}")):
        folder.mkdir()
        (folder / "tokenizer_config.json").write_text(config)
    found = outcomes(tmp_path, f"model_name_or_path: {with_own}\ntemplate: qwen99")["template"]
    assert (found.fate, found.settings) == (RENAMED, {"data.template": None})
    assert "there is no template qwen99, so the tokenizer's own is used" in found.told
    for model in (without, "org/model"):
        found = outcomes(tmp_path, f"model_name_or_path: {model}\ntemplate: llama33")["template"]
        assert found.fate == MISSING and "did you mean 'llama3'?" in found.told


def test_paths_keep_their_meaning(tmp_path: Path):
    text = "model_name_or_path: ~/models/x y\ndataset: a\ndataset_dir: ../data\nstage: sft\n"
    result = imported(tmp_path, text)
    assert result.values["model.model_name_or_path"] == "~/models/x y"
    assert result.values["data.dataset_dir"] == "../data"
    again = composed(result.overrides)
    expected = (str(Path("~/models/x y").expanduser()), "../data")
    assert (again["model"]["model_name_or_path"], again["data"]["dataset_dir"]) == expected


def test_a_file_that_cannot_be_read_or_written_is_refused(cli: Cli, tmp_path: Path):
    (tmp_path / "flat.yaml").write_text(TRAINING)
    (tmp_path / "file").write_text("")
    (tmp_path / "odd.yaml").write_bytes(b"\xff\xfe")
    for words, part in (
        (["flat.yaml", "--to", "file"], "--to=file: cannot be written to: it is a file"),
        (["flat.yaml", "--to", "/proc/x"], "--to=/proc/x: cannot be written to: "),
        (["odd.yaml"], "odd.yaml: is not YAML: 'utf-8' codec"),
    ):
        done = cli("import", *words)
        assert done.returncode == 2 and "Traceback" not in done.stderr and part in done.stderr, done


@pytest.mark.parametrize("optimizer", ["galore", "apollo"])
def test_a_layerwise_optimizer_of_theirs_is_taken_as_it_is(tmp_path: Path, optimizer: str) -> None:
    text = f"model_name_or_path: m\ndataset: d\nfinetuning_type: full\nuse_{optimizer}: true\n"
    text += f"{optimizer}_layerwise: true\n"
    found = imported(tmp_path, text)
    assert not found.refused and found.added["training.max_grad_norm"] == 0
    asked = imported(tmp_path, text + "max_grad_norm: 1.0\n")
    assert [problem.key for problem in asked.refused] == ["training.max_grad_norm"]
