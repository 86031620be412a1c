"""Checkpoints: damaged ones are passed over and named, a full disk loses nothing, and another setup is refused."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.command_line import Cli, log_of
from support.finished_runs import Finished
from support.forked_cli import answers
from support.own_model import change_a_bit, tiny_model

from llmf_hydra.runs import checkpoints, seal
from llmf_hydra.runs import folder as runs

WEIGHTS = "adapter_model.safetensors"
QUICK = ["stage=sft", "model=tiny", "training.logging_steps=1", "training.eval_strategy=no", "data.val_size=0",
         "training.learning_rate=0.01", "training.plot_loss=false", "training.save_steps=2",
         "data.max_samples=60"]  # fmt: skip


manifest = runs.read_manifest


@pytest.fixture
def killed(finished: Finished, tmp_path: Path) -> Path:
    """A run with checkpoints of steps 6 and 12, as one leaves it that died just before its end."""
    out = tmp_path / "run"
    shutil.copytree(finished("sft").out, out)
    shutil.rmtree(out / "final")
    (out / "manifest.json").write_text(json.dumps(manifest(out) | {"status": "killed", "cwd": str(tmp_path)}))
    return out


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no weights": (lambda at: (at / WEIGHTS).unlink(), f"{WEIGHTS} is missing"),
    "cut weights": (lambda at: cut(at / WEIGHTS), rf"{WEIGHTS} holds \d+ of \d+ bytes"),
    "cut optimizer": (lambda at: cut(at / "optimizer.pt"), r"optimizer.pt holds \d+ of \d+ bytes"),
    "a bit": (lambda at: flip(at / "optimizer.pt"), "optimizer.pt has changed since it was written"),
    "no state": (lambda at: (at / "trainer_state.json").unlink(), "it holds no trainer_state.json"),
    "no state of the stage": (lambda at: (at / "stage_state_0.pt").unlink(), "stage_state_0.pt is missing"),
    "cut seal": (lambda at: cut(at / "complete.json"), "complete.json cannot be read"),
}
UNSEALED: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut weights": (lambda at: cut(at / WEIGHTS), f"{WEIGHTS} is cut off"),
    "cut optimizer": (lambda at: cut(at / "optimizer.pt"), "optimizer.pt is cut off"),
    "cut state": (lambda at: cut(at / "trainer_state.json"), "trainer_state.json is cut off"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over(name: str, killed: Path) -> None:
    harm, why = DAMAGES[name]
    assert checkpoints.choose(killed) == checkpoints.Choice(killed / "checkpoint-12")
    harm(killed / "checkpoint-12")
    choice = checkpoints.choose(killed)
    assert choice.checkpoint == killed / "checkpoint-6"
    assert re.fullmatch(f"going on from checkpoint-6; checkpoint-12 is passed over: {why}", choice.sentence())


@pytest.mark.parametrize("name", UNSEALED)
def test_one_without_a_seal_is_looked_at_by_its_formats(name: str, killed: Path) -> None:
    """As an older version and Transformers write them."""
    folder = killed / "checkpoint-12"
    (folder / seal.SEAL).unlink()
    assert seal.damage(folder) is None
    harm, why = UNSEALED[name]
    harm(folder)
    assert seal.damage(folder) == why


def test_a_run_resumes_from_the_last_whole_one_and_removes_the_rest(
    killed: Path, cli: Cli, finished: Finished
) -> None:
    cut(killed / "checkpoint-12" / "optimizer.pt")
    (killed / ".partial" / "checkpoint-13").mkdir(parents=True)
    done = cli("resume", "run")
    assert done.returncode == 0, done.stderr
    first = done.stdout.splitlines()[0]
    assert first.startswith("going on from checkpoint-6; checkpoint-13 is passed over: it was never finished; "
                            "checkpoint-12 is passed over: optimizer.pt holds ")  # fmt: skip
    whole = finished("sft").out
    assert log_of(killed) == log_of(whole)
    assert (killed / "final" / WEIGHTS).read_bytes() == (whole / "final" / WEIGHTS).read_bytes()
    assert seal.damage(killed / "checkpoint-12") is None and not (killed / ".partial").exists()


def test_without_a_whole_one_it_begins_again(killed: Path, cli: Cli, finished: Finished) -> None:
    for step in (6, 12):
        cut(killed / f"checkpoint-{step}" / WEIGHTS)
    done = cli("resume", "run")
    assert done.returncode == 0 and done.stdout.startswith("going on from the run's beginning; "), done.stderr
    assert log_of(killed) == log_of(finished("sft").out)


@pytest.mark.parametrize(
    ("key", "recorded", "now"),
    [
        ("launch.nproc_per_node", 1, 2),
        ("training.per_device_train_batch_size", 2, 4),
        ("training.gradient_accumulation_steps", 1, 2),
        ("training.seed", 42, 43),
    ],
)
def test_another_setup_is_refused(key: str, recorded: int, now: int, killed: Path, cli: Cli) -> None:
    config, name = killed / "config.yaml", key.partition(".")[2]
    before, text = manifest(killed), config.read_text(encoding="utf8")
    config.write_text(text.replace(f"\n  {name}: {recorded}\n", f"\n  {name}: {now}\n", 1), encoding="utf8")
    assert config.read_text(encoding="utf8") != text
    done = cli("resume", "run")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"{key}={now}: {killed}/checkpoint-12 was trained with {recorded}" in done.stderr
    assert f"set {key}={recorded}" in done.stderr
    assert manifest(killed) == before and log_of(killed)[-1]["step"] == 12

    named = cli("stage=sft", "model=tiny", f"{key}={now}", "training.resume_from_checkpoint=run/checkpoint-6",
                "hydra.run.dir=new")  # fmt: skip
    assert named.returncode == 2 and f"was trained with {recorded}" in named.stderr
    assert not (killed.parent / "new").exists()


EDITS: dict[str, tuple[Callable[[str], str], str]] = {
    "emptied": (lambda text: "", "lacks job.name, "),
    "a line gone": (
        lambda text: re.sub(r"\n  max_steps: .*", "", text),
        "lacks training.max_steps, which it",
    ),
    "a group gone": (
        lambda text: re.sub(r"\nmodel:\n(  .*\n)+", "\n", text),
        "lacks model.model_name_or_path, ",
    ),
    "a range": (
        lambda text: re.sub(r"lora_rank: .*", "lora_rank: -3", text),
        "method.lora_rank (in {file})=-3: must be >= 1",
    ),
    "a choice": (
        lambda text: re.sub(r"lr_scheduler_type: .*", "lr_scheduler_type: banana", text),
        "training.lr_scheduler_type (in {file})=banana: is not one of",
    ),
    "a job": (
        lambda text: text.replace("name: train\n", "name: ../../etc\n", 1),
        "job.name (in {file})=../../etc",
    ),
    "a stage": (lambda text: text.replace("name: sft\n", "name: mine\n", 1), "stage.name (in {file})=mine"),
    "a rule": (
        lambda text: re.sub(r"lora_alpha: .*", "lora_alpha: 0", text),
        "method.lora_alpha (in {file})=0: scales",
    ),
    "a model": (
        lambda text: text.replace("builtin:tiny", "./none"),
        "model.model_name_or_path (in {file})=./none: there is no such folder",
    ),
}
MANIFESTS = {
    "{": "is not valid JSON",
    "[]": "holds no mapping",
    '{"status": "killed"}': "lacks cwd and command and created",
    '{"created": "2026-01-01T00:00:00+00:00", "cwd": "/", "command": ["x"]}': "holds no status",
}


def test_a_damaged_config_or_manifest_is_refused_before_anything_is_loaded(
    killed: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    config, kept = killed / "config.yaml", manifest(killed)
    text = config.read_text(encoding="utf8")
    cases = [("resume", config, edit(text), part) for edit, part in EDITS.values()]
    cases += [(word, killed / "manifest.json", said, part)
              for said, part in MANIFESTS.items() for word in ("resume", "reproduce")]  # fmt: skip
    gone = json.dumps(kept | {"cwd": "/nowhere"})
    cases.append(("resume", killed / "manifest.json", gone, "its working directory /nowhere is gone"))
    for word, file, content, part in cases:
        before = file.read_text(encoding="utf8")
        assert content != before, part
        file.write_text(content, encoding="utf8")
        (answer,) = answers([([word, "run"], {})], tmp_path, environment)
        assert answer.code == 2 and not answer.torch and "Traceback" not in answer.said, answer
        assert part.format(file=file) in answer.said, answer
        assert file.read_text(encoding="utf8") == content
        file.write_text(before, encoding="utf8")
    assert log_of(killed)[-1]["step"] == 12


@pytest.mark.parametrize("streaming", ["false", "true"])
def test_changed_data_is_refused(streaming: str, cli: Cli, tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": f"ask {n}"}, {"role": "assistant", "content": f"say {n}"}]}
            for n in range(20)]  # fmt: skip
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [*QUICK, "data.dataset=rows.jsonl", f"data.streaming={streaming}", "training.max_steps=4"]
    made = cli(*words, "hydra.run.dir=run")
    assert made.returncode == 0, made.stderr
    out = tmp_path / "run"
    log = (out / "log.jsonl").read_bytes()
    (out / "manifest.json").write_text(json.dumps(manifest(out) | {"status": "killed"}))
    shutil.rmtree(out / "checkpoint-4")
    data.write_text(data.read_text().replace("say 7", "say 8"))
    done = cli("resume", "run")
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stdout + done.stderr
    assert (
        "data.dataset: the data has changed since" in done.stderr
        and "checkpoint-2 was trained" in done.stderr
    )
    assert (out / "log.jsonl").read_bytes() == log and manifest(out)["status"] == "killed"
    data.write_text(data.read_text().replace("say 8", "say 7", 1))
    assert cli("resume", "run").returncode == 0


def test_changed_weights_are_refused(finished: Finished, cache: Path, cli: Cli, tmp_path: Path) -> None:
    finished("sft")  # the tiny model is built
    model = tiny_model(cache, tmp_path / "model")
    words = [
        *QUICK,
        "model.model_name_or_path=./model",
        "training.max_steps=4",
        "training.save_total_limit=2",
    ]
    assert cli(*words, "hydra.run.dir=run").returncode == 0
    out = tmp_path / "run"
    (out / "manifest.json").write_text(json.dumps(manifest(out) | {"status": "killed"}))
    shutil.rmtree(out / "checkpoint-4")
    log = (out / "log.jsonl").read_bytes()
    original = change_a_bit(model / "model.safetensors")
    named = ["training.resume_from_checkpoint=run/checkpoint-2", "hydra.run.dir=new"]
    for command in (["resume", "run"], [*words, *named]):
        done = cli(*command)
        assert done.returncode == 2 and "Traceback" not in done.stderr, done.stdout + done.stderr
        assert "model.model_name_or_path=./model: its weights have changed since" in done.stderr
        assert "checkpoint-2 was trained on them: their digest was " in done.stderr
    assert (out / "log.jsonl").read_bytes() == log and manifest(out)["status"] == "killed"
    assert not (tmp_path / "new").exists()
    (model / "model.safetensors").write_bytes(original)  # the same again, with another time of change
    assert cli("resume", "run").returncode == 0


def test_a_damaged_one_that_is_named_is_refused(killed: Path, cli: Cli) -> None:
    cut(killed / "checkpoint-6" / "optimizer.pt")
    done = cli(
        "stage=sft", "model=tiny", "training.resume_from_checkpoint=run/checkpoint-6", "hydra.run.dir=new"
    )
    assert done.returncode == 2
    assert "training.resume_from_checkpoint=run/checkpoint-6: is damaged: optimizer.pt holds" in done.stderr


def test_a_full_disk_ends_the_run_and_loses_nothing(small_disk: Path, cli: Cli, tmp_path: Path) -> None:
    words = [*QUICK, "training.max_steps=10"]
    done = cli(*words, "hydra.run.dir=disk/run")
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    out = small_disk / "run"
    last = checkpoints.choose(out).checkpoint
    assert last is not None
    step = int(last.name.partition("-")[2])
    said = next(line for line in done.stderr.splitlines() if line.startswith("failed: "))
    cause = r"cannot be saved: No space left on device; \S+ \w+ are free at"
    assert re.search(f"{out}/checkpoint-{step + 2} {cause} {out}", said)
    assert f"{last.name} is whole" in said and f"llmf resume {out}" in said
    # The disk may have no room for the new manifest either: then the old one stays whole, and reads as killed.
    assert runs.status(manifest(out)) in ("failed", "killed")
    assert {file.name for file in out.iterdir()} >= {last.name} and not (out / ".partial").exists()
    assert not (out / "error.txt").exists()

    subprocess.run(["mount", "-o", "remount,size=16m", small_disk], check=True)
    resumed = cli("resume", "disk/run")
    assert resumed.returncode == 0, resumed.stderr
    assert cli(*words, "hydra.run.dir=whole").returncode == 0
    assert log_of(out) == log_of(tmp_path / "whole")
    assert (out / "final" / WEIGHTS).read_bytes() == (tmp_path / "whole" / "final" / WEIGHTS).read_bytes()


@pytest.mark.slow
def test_a_limit_on_files_is_named(cli: Cli, environment: dict[str, str], tmp_path: Path) -> None:
    """`ulimit -f` under the size of the optimizer's state, which PyTorch reports as an inner assertion of its own."""
    words = [*QUICK, "method=full", "training.max_steps=4"]
    assert cli(*words, "hydra.run.dir=whole").returncode == 0  # also makes model and data in the cache
    limited = f"ulimit -f 800; exec {sys.executable} -m llmf_hydra {' '.join(words)} hydra.run.dir=run"
    done = subprocess.run(["bash", "-c", limited], cwd=tmp_path, env={**environment, "LLMF_WORKERS": ""}, text=True,
                          capture_output=True, check=False)  # fmt: skip
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    out = tmp_path / "run"
    assert f"{out}/checkpoint-2 cannot be saved: File too large; " in done.stderr
    assert (
        "a file may have 819.2 kB (ulimit -f)" in done.stderr
        and "no checkpoint was saved before" in done.stderr
    )
    assert not list(out.glob("checkpoint-*")) and not (out / ".partial").exists()
    assert cli("resume", "run").returncode == 0
    assert log_of(out) == log_of(tmp_path / "whole")
