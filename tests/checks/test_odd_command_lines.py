"""Some hundreds of odd command lines and files: exit code 0 or 2, one clear answer, never a traceback."""

import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.command_line import ROOT, Cli
from support.forked_cli import answers

KEYS = ["method.lora_rank", "stage", "data.dataset", "training.bf16", "experiment", "hydra.run.dir", "tracking",
        "hydra/launcher", "hydra.mode", "model", "rlhf", "", "=", "+x", "~stage", "++a.b.c", "stage@x", "training.seed",
        "data.dataset_dir", "hydra.job.name", "hydra.sweep.dir", "hydra.searchpath", "tracking.run_name"]  # fmt: skip
VALUES = ["", "null", "[", "{a:1}", "[1,[2,[3]]]", "9" * 5000, "[" * 400 + "]" * 400, "\u202e", "é😀", "\udcff",
          "${x}", "${now:}", "${oc.env:NOPE}", "a,b", "choice(1,2)", "range(1,4)", "interval(0,1)", "glob(*)", "1e999",
          "-inf", "nan", "'a", "\"a\\", "a b", "x=y", "../..", "~/x", "%s", "MULTIRUN", "[a,b]", "true",
          "0x1f"]  # fmt: skip
FLAGS = [
    "-m",
    "--cfg",
    "job",
    "--info",
    "--package",
    "x",
    "--resolve",
    "-sc",
    "--hydra-help=1",
    "--",
    "-x",
    "-",
]


def test_odd_command_lines_end_without_a_traceback(tmp_path: Path, environment: dict[str, str]) -> None:
    draw = random.Random(10)
    lines = []
    for _ in range(80):
        words = [f"{draw.choice(KEYS)}={draw.choice(VALUES)}" for _ in range(draw.randint(1, 3))]
        words += draw.sample(FLAGS, draw.choice([0, 0, 0, 1, 2]))
        lines.append(([*words, "model=tiny", "job=check"], {}))
    wrong = [
        (words, code, said[-500:])
        for (words, _), (code, said, _) in zip(lines, answers(lines, tmp_path, environment), strict=True)
        if code not in (0, 1, 2) or "Traceback" in said
    ]
    assert not wrong, f"{len(wrong)}: {wrong[:3]}"


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """A conf folder with one broken file, one unknown key, and one sound choice."""
    folder = tmp_path / "conf" / "method"
    folder.mkdir(parents=True)
    (folder / "broken.yaml").write_text("name: lora\nlora_rank: [8\n")
    (folder / "typo.yaml").write_text("name: lora\nlora_rnk: 8\n")
    (folder / "fine.yaml").write_text("name: lora\nlora_rank: 9\n")
    (folder / "mine.yaml").write_text("name: mine\n")
    return tmp_path / "conf"


def test_an_own_file_that_cannot_be_taken_is_named(tmp_path: Path, environment: dict[str, str]) -> None:
    conf = tmp_path / "conf" / "method"
    conf.mkdir(parents=True)
    content = {
        "list": (b"- a\n", "holds a list, not keys and values"),
        "loop": (b"lora_rank: &x [*x]\n", "an alias in it contains itself"),
        "latin": (b"name: lora\n# caf\xe9\n", "is not UTF-8 (byte 0xe9 at 16); save the file as UTF-8"),
        "utf16": ("name: lora\n".encode("utf-16"), "is not UTF-8 (byte 0xff at 0)"),
    }
    for name, (text, _) in content.items():
        (conf / f"{name}.yaml").write_bytes(text)
    lines = [([f"method={name}", "model=tiny"], {"LLMF_CONF": str(conf.parent)}) for name in content]
    for (name, (_, what)), (code, said, torch) in zip(
        content.items(), answers(lines, tmp_path, environment), strict=True
    ):
        assert code == 2 and f"{conf / name}.yaml: {what}" in said.replace("is nested too deeply, or ", ""), (
            said
        )
        assert len(said.splitlines()) == 2 and not torch


def test_a_run_folder_that_cannot_be_made_is_named(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "dangling").symlink_to("/nowhere/x")
    long = "a" * 300
    cases = {
        "/proc/foo": "cannot be made: No such file or directory",
        f"{tmp_path}/dangling": "is a symbolic link to /nowhere/x, which is not there",
        f"{tmp_path}/new/{long}": "cannot be made: File name too long",
    }
    lines = [([f"hydra.run.dir={folder}", "model=tiny"], {}) for folder in cases]
    for (folder, what), answer in zip(cases.items(), answers(lines, tmp_path, environment), strict=True):
        assert answer.code == 2 and f"hydra.run.dir={folder}: {what}" in answer.said, answer
    assert [path.name for path in tmp_path.iterdir()] == ["dangling"]


def test_a_working_directory_that_is_gone_is_told(tmp_path: Path, environment: dict[str, str]) -> None:
    for words in ("model=tiny", "runs"):
        start = f'mkdir gone && cd gone && rmdir ../gone && exec "{sys.executable}" -P -m llmf_hydra {words}'
        done = subprocess.run(["bash", "-c", start], cwd=tmp_path, capture_output=True, text=True, check=False,
                              env={**environment, "PYTHONPATH": str(ROOT)})  # fmt: skip
        assert done.returncode == 2 and "Traceback" not in done.stderr
        assert "the working directory is gone; change to a folder that is there" in done.stderr


def test_the_file_at_fault_is_named_and_no_other(
    conf: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    env = {"LLMF_CONF": str(conf)}
    lines = [
        ([f"method={name}", "--cfg", "job", "--package", "method"], env)
        for name in ("broken", "typo", "fine", "mine")
    ]
    run = ["method=mine", "stage=sft", "model=tiny"]
    named = [(run, env), (["-m", *run, "training.seed=1,2"], env)]
    broken, typo, fine, *unknown = answers([*lines, *named], tmp_path, environment)
    for answer in unknown:
        assert answer.code == 2 and "Traceback" not in answer.said and not answer.torch, answer
        assert (
            "method.name (in method/mine.yaml)=mine: is not one of lora, oft, freeze, full" in answer.said
        ), answer
    assert (
        broken[0] == 2
        and "broken.yaml: is not readable YAML" in broken[1]
        and "(line 3, column 1)" in broken[1]
    )
    assert len(broken[1].splitlines()) == 2 and "typo" not in broken[1]
    assert typo[0] == 2 and "method.lora_rnk (in " in typo[1] and "did you mean 'method.lora_rank'" in typo[1]
    assert "broken" not in typo[1]
    assert fine[0] == 0 and "lora_rank: 9" in fine[1]


def test_a_number_is_no_switch_wherever_it_is_written(tmp_path: Path, environment: dict[str, str]) -> None:
    """`bf16: 1` in a choice, an experiment or a primary config; in any folder, beside other errors."""
    conf = tmp_path / "conf"
    for group in ("training", "experiment"):
        (conf / group).mkdir(parents=True)
    head = "# @package _global_\n"
    (conf / "training" / "mine.yaml").write_text("bf16: 1\n")
    (conf / "experiment" / "mine.yaml").write_text(
        f"{head}training: {{bf16: 1}}\nmodel: {{use_cache: 0.0}}\n"
    )
    (conf / "experiment" / "more.yaml").write_text(f"{head}training: {{bf16: 1, learning_rate: fast}}\n")
    (conf / "experiment" / "fine.yaml").write_text(f"{head}training: {{bf16: true}}\n")
    (conf / "primary.yaml").write_text("defaults: [config, _self_]\ntraining: {bf16: 1}\n")
    mine, folder = {"LLMF_CONF": str(conf)}, ["--config-dir", str(conf)]
    file = {name: f"training.bf16 (in {conf / name}.yaml)=1: is not of type bool or null; write true or false"
            for name in ("training/mine", "experiment/mine", "experiment/more", "primary")}  # fmt: skip
    cases: list[tuple[list[str], dict[str, str], list[str]]] = [
        (["training=mine"], mine, [file["training/mine"]]),
        (["training=mine", "training.bf16=true"], mine, [file["training/mine"]]),
        ([*folder, "training=mine"], {}, [file["training/mine"]]),
        (["--config-path", str(conf), "training=mine"], {}, [file["training/mine"]]),
        ([*folder, "experiment=mine"], {}, [file["experiment/mine"], "model.use_cache (in ", "2 problems"]),
        ([*folder, "experiment=more"], {}, [file["experiment/more"], "learning_rate", "2 problems"]),
        ([*folder, "training=mine", "experiment=more"], {}, [file["training/mine"], file["experiment/more"]]),
        ([*folder, "--config-name", "primary"], {}, [file["primary"]]),
        (["-m", *folder, "training=mine", "training.seed=1,2"], {}, [file["training/mine"]]),
        ([*folder, "training=mine", "--cfg", "job"], {}, [file["training/mine"]]),
    ]
    lines = [(["model=tiny", *words], env) for words, env, _ in cases]
    before = sorted(tmp_path.rglob("*"))
    found = answers([*lines, ([*folder, "experiment=fine", "--cfg", "job", "--package", "training"], {})],
                    tmp_path, environment)  # fmt: skip
    *refused, fine = found
    wrong = [
        (words, answer) for (words, _, parts), answer in zip(cases, refused, strict=True)
        if answer.code != 2 or answer.torch or "Traceback" in answer.said
        or not all(part in answer.said for part in parts)
    ]  # fmt: skip
    assert not wrong, wrong
    assert fine.code == 0 and "bf16: true" in fine.said
    assert sorted(tmp_path.rglob("*")) == before


def test_a_config_path_replaces_the_shipped_folder(cli: Cli, tmp_path: Path) -> None:
    """Its files win, the shipped ones stay at hand, and a primary config of its own is found."""
    own = tmp_path / "own"
    (own / "method").mkdir(parents=True)
    (own / "method" / "lora.yaml").write_text("name: lora\nlora_rank: 9\n")
    (own / "mine.yaml").write_text("defaults: [config, _self_]\nmethod: {lora_dropout: 0.25}\n")
    words = ["--config-path", "own", "model=tiny"]  # from the working directory
    method = yaml.safe_load(cli(*words, "--cfg", "job", "--package", "method").stdout)
    assert (method["lora_rank"], method["lora_dropout"]) == (9, 0.0)
    done = cli(*words, "--config-name", "mine", "job=check", "stage=sft", "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    recorded = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text(encoding="utf8"))
    assert (recorded["method"]["lora_rank"], recorded["method"]["lora_dropout"]) == (9, 0.25)
    assert recorded["model"]["model_name_or_path"] == "builtin:tiny"
    gone = cli("--config-path", "gone", "model=tiny")
    assert gone.returncode == 2 and "--config-path=gone: there is no such folder" in gone.stderr


def test_a_conf_folder_that_is_none_is_refused(tmp_path: Path, environment: dict[str, str]) -> None:
    """Without its files the run would be another one than was asked for."""
    words, file = ["stage=sft", "model=tiny", "job=check"], tmp_path / "file.yaml"
    (tmp_path / "empty").mkdir()
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "mine.yaml").write_text("defaults: [config, _self_]\n")
    (tmp_path / "own" / "far.yaml").write_text("defaults: [config, _self_]\nhydra: {searchpath: [/far]}\n")
    file.write_text("")
    far = ["--config-path", "own", "--config-name", "far"]
    cases = [
        (words, {"LLMF_CONF": "/nope"}, "LLMF_CONF=/nope: there is no such folder"),
        (words, {"LLMF_CONF": str(file)}, f"LLMF_CONF={file}: is a file"),
        (["explain", "lora_rank"], {"LLMF_CONF": "/nope"}, "LLMF_CONF=/nope"),
        ([*words, "--config-path", "empty"], {}, "--config-path=empty: holds neither config.yaml nor"),
        ([*words, "--config-path", "own", "--config-name", "other"], {}, "holds neither other.yaml nor"),
        ([*words, *far], {}, "hydra.searchpath=['/far']: is not read; put a folder before"),
        ([*words, *far, "method=mine"], {}, "hydra.searchpath (in far.yaml)=['/far']: is not read"),
    ]
    found = answers([(words, env) for words, env, _ in cases], tmp_path, environment)
    wrong = [
        (words, answer) for (words, _, part), answer in zip(cases, found, strict=True)
        if answer.code != 2 or answer.torch or part not in answer.said
    ]  # fmt: skip
    assert not wrong, wrong
    fine = [(["--config-path", "own", "--config-name", "mine", "--cfg", "job"], {"LLMF_CONF": ""})]
    assert [answer.code for answer in answers(fine, tmp_path, environment)] == [0]


def test_hydras_own_help_lists_the_flags_that_are_there(cli: Cli) -> None:
    shown = cli("--hydra-help")
    assert shown.returncode == 0 and shown.stderr == "", shown.stderr
    listed = {word for line in shown.stdout.splitlines() for word in re.findall(r"^(--[a-z-]+)", line)}
    assert {"--multirun", "--cfg", "--config-dir", "--config-path", "--config-name", "--info"} <= listed
    assert 'eval "$(llmf-hydra -sc install=bash)"' in shown.stdout and "__main__" not in shown.stdout


def test_hydra_habits(tmp_path: Path, environment: dict[str, str]) -> None:
    cases = [
        (["-m", "method.lora_rank=4,8", "--cfg", "job"], 0, "# each trial also sets one of: method.lora_rank=4,8"),
        (["+experiment=simpo_tiny", "--cfg", "job", "--package", "rlhf"], 0, "pref_loss: simpo"),
        (["--cfg", "hydra", "--package", "hydra.run"], 0, "dir: outputs/"),
        (["--cfg", "job", "--resolve", "--package", "method.lora_rank"], 0, "8"),
        (["--info", "searchpath"], 0, "Config search path"),
        (["-sc", "install=bash"], 0, "hydra_bash_completion"),
        (["-sc", "install=zsh"], 0, "hydra_bash_completion"),
        (["-sc", "install=fish"], 0, "hydra_fish_completion"),
        (["-sc", "query=bash"], 0, "method=dora"),
        (["hydra/launcher=joblib"], 2, "pip install hydra-joblib-launcher"),
        (["hydra/sweeper=optuna"], 2, "pip install hydra-optuna-sweeper"),
        (["hydra/launcher=nope"], 2, "is not one of basic"),
        (["training.bf16=1"], 2, "write true or false"),
        (["training.learning_rate=inf"], 2, "is not a finite number"),
        (["training.learning_rate=nan"], 2, "is not a finite number"),
        (["launch.nproc_per_node=100000"], 2, "must be in [1, 256]"),
        (["training.num_train_epochs=1e9"], 2, "must be in (0, 100000]"),
        (["-m", "training.seed=interval(0,1)", "model=tiny"], 2, "is "),
        (["-m", "training.seed=range(0,100000)", "model=tiny"], 2, "more than 10000 trials"),
        (["hydra.run.dir=/", "model=tiny"], 2, "hydra.run.dir=/"),
        (["hydra.searchpath=[/mine]", "method=mine"], 2, "hydra.searchpath=[/mine]: is not read"),
        (["model=path", "model.model_name_or_path=~/no-such-model"], 2, f"{Path.home()}/no-such-model"),
    ]  # fmt: skip
    env = {"COMP_LINE": "llmf-hydra method="}
    found = answers([(words, env) for words, _, _ in cases], tmp_path, environment)
    wrong = [
        (words, answer) for (words, code, part), answer in zip(cases, found, strict=True)
        if answer[0] != code or part not in answer[1]
    ]  # fmt: skip
    assert not wrong, wrong
    assert list(tmp_path.iterdir()) == []


def test_values_beyond_ascii_need_no_quotes(tmp_path: Path, environment: dict[str, str]) -> None:
    cases = {
        "tracking.run_name=données": "données",
        "tracking.run_name=über uns/東京😀": "über uns/東京😀",
        "tracking.run_name='données, ja'": "données, ja",
        "tracking.run_name=ü-${training.seed}": "ü-3",
        "tracking.run_name=~/é=è": f"{Path.home()}/é=è",
    }
    words = ["training.seed=3", "--cfg", "job", "--resolve", "--package", "tracking"]
    lines = [([word, *words], {}) for word in cases]
    several = (["-m", "tracking.run_name=é,b", "--cfg", "job", "--package", "tracking"], {})
    *found, swept = answers([*lines, several], tmp_path, environment)
    assert [answer.code for answer in found] == [0] * len(cases), found
    assert [yaml.safe_load(answer.said)["run_name"] for answer in found] == list(cases.values())
    assert swept.code == 0 and "# each trial also sets one of: tracking.run_name='é',b" in swept.said
