"""`llmf reproduce`: the same to the byte where nothing has changed, and what has changed by its name."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.command_line import ROOT, Cli
from support.finished_runs import SHORT, Finished

from llmf_hydra.config.choices import STAGES
from llmf_hydra.runs.manifest import cores

ROWS = 12
Copied = Callable[..., Path]


@pytest.fixture
def copied(finished: Finished, tmp_path: Path) -> Copied:
    """`copied(machine={"cores": 3})` is the folder of a finished run at another place, its manifest changed."""

    def copy(run: Path | None = None, to: str = "copied/run", **changes: Any) -> Path:
        out = tmp_path / to
        shutil.copytree(run or finished("sft").out, out)
        file = out / "manifest.json"
        manifest = json.loads(file.read_text(encoding="utf8"))
        for key, value in changes.items():
            manifest[key] = {**manifest[key], **value} if isinstance(value, dict) else value
        file.write_text(json.dumps(manifest), encoding="utf8")
        return out

    return copy


def answer(done: "subprocess.CompletedProcess[str]", code: int) -> dict[str, Any]:
    """What `--json` printed."""
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


def named(found: dict[str, Any]) -> list[tuple[str, str]]:
    return [(change["kind"], change["name"]) for change in found["changes"]]


@pytest.mark.parametrize(
    "stage", [pytest.param(s, marks=[] if s in ("sft", "dpo") else pytest.mark.slow) for s in STAGES]
)
def test_each_stage_is_repeated_to_the_byte(cli: Cli, finished: Finished, tmp_path: Path, stage: str) -> None:
    reward = [f"rlhf.reward_model={finished('rm').out / 'final'}"] if stage == "ppo" else []
    run = finished(stage, *reward)
    found = answer(cli("reproduce", str(run.out), "--out", "again", "--json"), 0)
    assert found["identical"] and found["changes"] == [] and found["log"]["parting"] is None
    assert found["log"]["steps"] >= 6 and found["log"]["values"] > 20
    assert found["weights"]["identical"] and found["weights"]["files"] >= 1
    again = json.loads((tmp_path / "again" / "manifest.json").read_text(encoding="utf8"))
    assert again["reproduces"] == str(run.out) and again["status"] == "done" and again["sweep"] is None
    was = json.loads((run.out / "manifest.json").read_text(encoding="utf8"))
    assert again["command"] == was["command"] and again["files"] == was["files"]
    assert (tmp_path / "again" / "config.yaml").read_bytes() == (run.out / "config.yaml").read_bytes()


def test_the_folder_alone_is_enough_and_nothing_is_overwritten(
    cli: Cli, copied: Copied, tmp_path: Path
) -> None:
    run = copied(cwd="/gone/from/here")
    (run.parent / "run-reproduced").mkdir()
    (run.parent / "run-reproduced" / "mine.txt").write_text("mine")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = cli("reproduce", str(run), cwd=elsewhere)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "code, packages, data, tokenizer, template and models are those of the recorded run" in done.stdout
    assert "they started from /gone/from/here" in done.stdout
    assert "identical: " in done.stdout and "weights: the same bytes in 1 file" in done.stdout
    assert (run.parent / "run-reproduced-2" / "final").is_dir()
    assert [file.name for file in (run.parent / "run-reproduced").iterdir()] == ["mine.txt"]


@pytest.fixture(scope="module")
def on_own_rows(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working directory of a run on a file of the user's, named by a relative path: `rows.jsonl` and `run/`."""
    folder = tmp_path_factory.mktemp("own")
    counts = range(1, ROWS + 1)
    rows = [{"instruction": f"Count to {n}.", "output": " ".join(map(str, range(n)))} for n in counts]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf8")
    words = ["stage=sft", *SHORT, "data.dataset=rows.jsonl", "data.val_size=2", "training.eval_strategy=steps",
             "hydra.run.dir=run"]  # fmt: skip
    command = [sys.executable, "-m", "llmf_hydra", *words]
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    return folder


@pytest.fixture
def moved(on_own_rows: Path, copied: Copied, tmp_path: Path) -> Path:
    """The run and its rows at another place, as if the first one had never been on this machine."""
    copied(on_own_rows / "run", "project/run", cwd="/gone")
    shutil.copy(on_own_rows / "rows.jsonl", tmp_path / "project")
    return tmp_path / "project"


def test_a_changed_row_is_named_with_the_first_step_that_differs(cli: Cli, moved: Path) -> None:
    assert answer(cli("reproduce", "run", "--check", "--json", cwd=moved), 0)["same"]
    text = (moved / "rows.jsonl").read_text(encoding="utf8")
    (moved / "rows.jsonl").write_text(text.replace("Count to 7.", "Count up to 7."), encoding="utf8")
    checked = cli("reproduce", "run", "--check", cwd=moved)
    assert checked.returncode == 1 and "data rows.jsonl: " in checked.stdout
    assert str(moved / "rows.jsonl") in checked.stdout and not (moved / "run-reproduced").exists()
    done = cli("reproduce", "run", cwd=moved)
    assert done.returncode == 1, done.stdout + done.stderr
    before, _, after = done.stdout.partition("runs again in")
    assert "data rows.jsonl: " in before, "said before the run"
    verdict = after[after.index("not identical: ") :]
    assert "part at step 2, " in verdict and "a difference of " in verdict
    assert "changed before it: data rows.jsonl: " in verdict and "tensors differ, most " in verdict


def test_an_absolute_path_is_found_where_the_folder_lies_now(cli: Cli, moved: Path) -> None:
    config = moved / "run" / "config.yaml"
    config.write_text(config.read_text().replace("dataset: rows.jsonl", "dataset: /gone/rows.jsonl"))
    found = answer(cli("reproduce", "run", "--check", "--json", cwd=moved), 0)
    assert f"data.dataset: /gone/rows.jsonl lies at {moved / 'rows.jsonl'} now" in found["notices"]


def test_missing_data_are_refused_with_path_and_digest(cli: Cli, moved: Path) -> None:
    manifest = json.loads((moved / "run" / "manifest.json").read_text(encoding="utf8"))
    (moved / "rows.jsonl").unlink()
    done = cli("reproduce", "run", cwd=moved)
    assert done.returncode == 2 and "data.dataset=rows.jsonl: there is no such file" in done.stderr
    digest = manifest["files"]["data"]["rows.jsonl"]["files"]["rows.jsonl"]
    assert len(digest) == 64 and f"rows.jsonl sha256 {digest}" in done.stderr
    assert sorted(file.name for file in moved.iterdir()) == ["run"]


def test_a_missing_model_is_refused_with_its_digests(cli: Cli, moved: Path) -> None:
    config = moved / "run" / "config.yaml"
    config.write_text(
        config.read_text().replace("model_name_or_path: builtin:tiny", "model_name_or_path: my/model")
    )
    manifest = json.loads((moved / "run" / "manifest.json").read_text(encoding="utf8"))
    files = manifest["files"]["models"]["model.model_name_or_path"]
    files["path"] = "my/model"
    (moved / "run" / "manifest.json").write_text(json.dumps(manifest))
    done = cli("reproduce", "run", cwd=moved)
    assert (
        done.returncode == 2 and "model.model_name_or_path=my/model: there is no such folder" in done.stderr
    )
    assert f"model.safetensors sha256 {files['files']['model.safetensors']}" in done.stderr


def test_a_package_of_another_version_is_named(cli: Cli, copied: Copied, finished: Finished) -> None:
    manifest = json.loads((finished("sft").out / "manifest.json").read_text(encoding="utf8"))
    packages = manifest["machine"]["packages"]
    run = copied(machine={"packages": {**packages, "torch": "1.0.0", "ruff": "0.0.1"}, "cores": 4000})
    found = answer(cli("reproduce", str(run), "--check", "--json"), 1)
    assert [(change["name"], change["old"], change["new"]) for change in found["changes"]] == [
        ("torch", "1.0.0", packages["torch"])
    ]
    assert "packages that no run imports differ: ruff" in found["notices"]
    assert any(said.startswith("cores: 4000 -> ") for said in found["notices"])


def test_changed_tokenizer_and_weights_are_told_apart(cli: Cli, copied: Copied, finished: Finished) -> None:
    manifest = json.loads((finished("sft").out / "manifest.json").read_text(encoding="utf8"))
    entry = manifest["files"]["models"]["model.model_name_or_path"]
    names = ("tokenizer.json", "chat_template.jinja", "model.safetensors")
    files = {**entry, "files": {**entry["files"], **dict.fromkeys(names, "0" * 64)}}
    run = copied(files={"models": {"model.model_name_or_path": files}})
    found = answer(cli("reproduce", str(run), "--check", "--json"), 1)
    of = "model.model_name_or_path: "
    assert named(found) == [("template", f"{of}chat_template.jinja"), ("model", f"{of}model.safetensors"),
                            ("tokenizer", f"{of}tokenizer.json")]  # fmt: skip


@pytest.mark.slow
def test_a_changed_line_of_code_is_named_and_the_threads_are_the_recorded_ones(
    cli: Cli, copied: Copied, tmp_path: Path
) -> None:
    clone = tmp_path / "clone"
    in_git = (ROOT / ".git").exists()
    if in_git:
        command = ["git", "clone", "-q", "--no-checkout", str(ROOT), str(clone)]
        subprocess.run(command, check=True, capture_output=True)
    for folder in ("llmf_hydra", "conf", "data", "sweeps"):
        shutil.copytree(ROOT / folder, clone / folder, ignore=shutil.ignore_patterns("__pycache__"))
    source = clone / "llmf_hydra" / "training" / "trainer.py"
    line = "return whole * self.accelerator.num_processes / terms"
    text = source.read_text(encoding="utf8")
    assert text.count(line) == 1
    source.write_text(text.replace(line, f"{line} * 1.01"), encoding="utf8")
    number = text[: text.index(line)].count("\n") + 1

    run = copied(machine={"cores": 4000, "threads": 3})
    done = cli("reproduce", str(run), "--out", "again", "--json", env={"PYTHONPATH": str(clone)}, cold=True)
    found = answer(done, 1)
    assert named(found) == [("code", "training/trainer.py")]
    if in_git:
        assert found["changes"][0]["note"] == f"first at line {number}: {line} * 1.01"
    assert not found["identical"] and found["log"]["parting"]["step"] == 2
    assert found["log"]["parting"]["metric"] == "loss" and found["log"]["parting"]["difference"] > 0
    assert not found["weights"]["identical"] and next(iter(found["weights"]["tensors"].values())) > 0
    manifest = json.loads((tmp_path / "again" / "manifest.json").read_text(encoding="utf8"))
    assert manifest["machine"]["threads"] == 3
    assert any("for the 3 threads of the run" in said for said in found["notices"]) == (cores() < 3)


def test_what_a_killed_run_has_logged_is_compared(cli: Cli, copied: Copied) -> None:
    run = copied(status="killed")
    shutil.rmtree(run / "final")
    lines = (run / "log.jsonl").read_text(encoding="utf8").splitlines(keepends=True)
    assert "eval_loss" in lines[3]  # it was killed at this step, between its loss and its evaluation
    (run / "log.jsonl").write_text("".join(lines[:3]), encoding="utf8")
    done = cli("reproduce", str(run))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the recorded run is killed" in done.stdout and "values of 3 logged steps" in done.stdout


def test_a_resumed_run_is_repeated_in_one_go(cli: Cli, copied: Copied) -> None:
    run = copied(status="killed")
    for name in ("final", "checkpoint-12"):
        shutil.rmtree(run / name)
    lines = (run / "log.jsonl").read_text(encoding="utf8").splitlines()
    lost = json.loads(lines[4]) | {"loss": 9.0}  # of a step that is done again
    (run / "log.jsonl").write_text("\n".join([*lines[:4], json.dumps(lost)]) + "\n", encoding="utf8")
    resumed = cli("resume", str(run))
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads((run / "manifest.json").read_text(encoding="utf8"))["resumed"] == 1
    found = answer(cli("reproduce", str(run), "--json"), 0)
    assert found["weights"]["identical"] and found["log"]["steps"] >= 6 and found["log"]["parting"] is None
    assert any("was resumed" in said for said in found["notices"])


def test_secrets_come_from_the_environment_again(cli: Cli, copied: Copied) -> None:
    run = copied()
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("hf_hub_token: null", "hf_hub_token: '***'"))
    assert "begins without model.hf_hub_token (set HF_TOKEN" in cli("reproduce", str(run), "--check").stderr
    assert cli("reproduce", str(run), "--check", env={"HF_TOKEN": "hf_12345678"}).stderr == ""


def test_what_cannot_be_reproduced_is_refused(cli: Cli, copied: Copied, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine.txt").touch()
    for words, parts in (
        (["nowhere"], ["nowhere: is not a run folder"]),
        ([str(copied(to="a", status="created"))], ["is created", "when it has ended"]),
        ([str(copied(to="b", job="check"))], ["is of job=check"]),
        ([str(copied(to="c")), "--out", str(taken)], ["--out", "holds files already (mine.txt)"]),
    ):
        done = cli("reproduce", *words)
        assert done.returncode == 2 and all(part in done.stderr for part in parts), done.stderr
    assert [file.name for file in taken.iterdir()] == ["mine.txt"]
