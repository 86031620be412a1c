"""What the reference says of a row is computed once: by one run, one trial, one process, for all that come after."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.command_line import Cli, log_of
from support.stage_runs import SGD, Build, steps
from transformers import AutoModelForCausalLM

from llmf_hydra.paths import data_dir
from llmf_hydra.training.reference.model import undisturbed_random_state
from llmf_hydra.training.reference.store import ReferenceStore

# Dropout draws a random number in each step: the weights tell whether the reference has drawn one too.
SHORT = ["model=tiny", "training.max_steps=3", "training.per_device_train_batch_size=4", "data.val_size=6",
         "method.lora_dropout=0.2", "training.learning_rate=0.01", "training.logging_steps=1",
         "training.plot_loss=false"]  # fmt: skip
DPO = ["stage=dpo", *SGD, "training.per_device_train_batch_size=4"]
DEMO = data_dir() / "demo_preference.jsonl"


@pytest.fixture
def own_cache(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder in which nothing of a reference lies; the tiny model is the session's."""
    from llmf_hydra.models.builtin import tiny

    monkeypatch.setenv("LLMF_CACHE", str(cache))
    tiny.ready()
    own = tmp_path / "cache"
    own.mkdir()
    (own / "models").symlink_to(cache / "models")
    monkeypatch.setenv("LLMF_CACHE", str(own))
    return own


def manifest(name: str) -> dict[str, Any]:
    return json.loads(Path(name, "manifest.json").read_text(encoding="utf8"))


def trained(cli: Cli, name: str, *words: str) -> tuple[dict[str, int], bytes, str]:
    """What the manifest says of the reference, the weights, and what the run printed."""
    done = cli(*words, f"hydra.run.dir={name}", env={"LLMF_CACHE": os.environ["LLMF_CACHE"]})
    assert done.returncode == 0, done.stderr
    return (
        manifest(name)["reference"],
        Path(name, "final", "adapter_model.safetensors").read_bytes(),
        done.stdout,
    )


@pytest.mark.parametrize("stage", ["dpo", pytest.param("kto", marks=pytest.mark.slow)])
def test_a_run_with_kept_values_equals_one_that_computes_them(
    stage: str, cli: Cli, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [f"stage={stage}", *SHORT]
    cold, weights, said = trained(cli, "cold", *words)
    assert cold["computed"] >= 18 and cold["kept"] == 0
    assert "reference: 18 rows, 0 kept\n" in said
    warm, same, said = trained(cli, "warm", *words)
    assert (warm["computed"], warm["kept"]) == (0, cold["computed"])
    assert "reference: 18 rows, kept from an earlier run\n" in said
    assert same == weights and log_of(Path("warm")) == log_of(Path("cold"))
    (dataset,) = manifest("cold")["tokenized"]
    assert [manifest(name)["tokenized"][dataset] for name in ("cold", "warm")] == [
        "by this run",
        "kept from an earlier run",
    ]
    other, changed, _ = trained(cli, "other", *words, "rlhf.pref_beta=0.4")
    assert other["computed"] == 0 and changed != weights
    shutil.rmtree(own_cache / "reference")
    again, same, _ = trained(cli, "again", *words)
    assert again == cold and same == weights


def test_the_trials_of_a_sweep_tokenize_and_refer_once(
    cli: Cli, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["stage=dpo", *SHORT, "rlhf.pref_beta=0.1,0.4", "hydra.sweep.dir=study"]
    done = cli("-m", *words, env={"LLMF_CACHE": str(own_cache)})
    assert done.returncode == 0, done.stderr
    one, two = (manifest(f"study/{number}") for number in range(2))
    assert (one["reference"]["computed"], two["reference"]["computed"], two["reference"]["kept"]) == (
        18,
        0,
        18,
    )
    assert [*one["tokenized"].values(), *two["tokenized"].values()] == [
        "by this run",
        "kept from an earlier run",
    ]


@pytest.mark.slow
def test_two_processes_share_the_rows_and_what_is_kept(
    cli: Cli, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # Three epochs: each process comes to see nearly all rows, and computes some of them only.
    words = ["stage=dpo", *SHORT, "data.max_samples=18", "training.max_steps=-1", "training.num_train_epochs=3",
             "launch.nproc_per_node=2"]  # fmt: skip
    cold, weights, _ = trained(cli, "cold", *words)
    assert cold["computed"] == 18
    warm, same, _ = trained(cli, "warm", *words)
    assert warm["computed"] == 0 and same == weights


def test_a_longer_run_computes_what_is_missing(build: Build, own_cache: Path) -> None:
    computed = []
    for count in (2, 3, 3):
        trainer = build(*DPO, f"training.max_steps={count}")
        trainer.train()
        computed.append(trainer.facts()["reference"]["computed"])
    assert computed == [8, 4, 0]


@pytest.mark.parametrize("stage", ["dpo", "kto"])
@pytest.mark.parametrize("accumulated", [1, 3])
def test_all_rows_are_computed_before_the_first_step(
    stage: str, accumulated: int, build: Build, own_cache: Path
) -> None:
    words = [f"stage={stage}", *SGD, "training.disable_shuffling=false", "data.max_samples=10", "data.val_size=4",
             "training.max_steps=7", "training.per_device_train_batch_size=2", "training.eval_strategy=steps",
             f"training.gradient_accumulation_steps={accumulated}"]  # fmt: skip
    trainer = build(*words)
    asked, alone = [], trainer.reference._of_units
    trainer.reference._of_units = lambda rows, score: asked.append(len(rows)) or alone(rows, score)
    trainer.train()
    assert len(trainer.reference) == 10
    assert not asked if stage == "dpo" else trainer.reference.computed == len(trainer.reference.store._known)


def computed_by(build: Build, *words: str) -> int:
    trainer = build(*DPO, *words)
    trainer.train()
    return trainer.facts()["reference"]["computed"]


@pytest.mark.slow
def test_other_weights_data_and_precision_are_computed_anew(
    build: Build, own_cache: Path, tmp_path: Path, first: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmf_hydra.models.builtin import tiny

    monkeypatch.setenv("LLMF_CACHE", str(own_cache))  # `first` has set the session's
    same, other = tmp_path / "same", tmp_path / "other"
    shutil.copytree(tiny.ready(), same)
    shutil.copytree(tiny.ready(), other)
    model = AutoModelForCausalLM.from_pretrained(other)
    next(model.parameters()).data += 0.01
    model.save_pretrained(other)
    rows = [json.loads(line) for line in DEMO.read_text(encoding="utf8").splitlines()[:40]]
    rows[1]["chosen"] = "other"
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf8")
    assert computed_by(build) == 8
    assert computed_by(build, f"model.model_name_or_path={same}") == 0
    assert computed_by(build, "rlhf.pref_beta=0.7", "training.learning_rate=0.5", "method.lora_rank=3") == 0
    assert computed_by(build, "rlhf.pref_loss=ipo", "training.seed=7") == 0
    assert computed_by(build, f"data.dataset={tmp_path / 'rows.jsonl'}") == 1, "one row of eight is another"
    for word in (f"model.model_name_or_path={other}", "model.compute_dtype=bfloat16", "model.flash_attn=disabled",
                 f"model.adapter_name_or_path={first}", f"rlhf.ref_model_adapters={first}", "method=full",
                 f"rlhf.ref_model={other}"):  # fmt: skip
        assert [computed_by(build, word), computed_by(build, word)] == [8, 0], word


def test_damaged_files_are_computed_anew(build: Build, own_cache: Path) -> None:
    expected = steps(build(*DPO))
    files = sorted(own_cache.glob("reference/*/*.npz"))
    files[0].write_bytes(files[0].read_bytes()[:100])
    files[1].unlink()
    trainer = build(*DPO)
    losses, weights = steps(trainer)
    assert losses == expected[0] and all(torch.equal(w, expected[1][name]) for name, w in weights.items())
    assert 2 <= trainer.reference.computed < 8


def test_a_cache_that_may_not_be_written_stops_no_run(build: Build, own_cache: Path) -> None:
    (own_cache / "reference").write_text("a file where the folder should be")
    trainer = build(*DPO)
    trainer.train()
    assert trainer.facts()["reference"] == {"computed": 8, "kept": 0, "key": None}


def test_random_numbers_are_as_if_nothing_had_been_drawn() -> None:
    def drawn() -> list[float]:
        return [random.random(), float(np.random.rand()), torch.rand(1).item()]

    def seed() -> None:
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)

    seed()
    expected = drawn()
    seed()
    with undisturbed_random_state():
        drawn()
    assert drawn() == expected


WORKER = """
import sys, time
from pathlib import Path
import numpy as np
from llmf_hydra.training.reference.store import ReferenceStore
folder, log, pause = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
units = [number.to_bytes(2, "little") * 8 for number in range(200)]
def compute(unit):
    with log.open("a") as file:
        file.write(f"{unit[0]}\\n")
    time.sleep(pause)
    return np.full(2, unit[0], np.float32)
store = ReferenceStore(folder)
store.complete(units, compute)
assert all((store.get(unit) == unit[0]).all() for unit in units)
"""


def started(folder: Path, log: Path, pause: float) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", WORKER, str(folder), str(log), str(pause)])


def test_processes_at_once_compute_different_values(tmp_path: Path) -> None:
    logs = [tmp_path / str(number) for number in range(2)]
    processes = [started(tmp_path / "store", log, 0.02) for log in logs]
    assert [process.wait(60) for process in processes] == [0, 0]
    computed = [log.read_text().split() if log.exists() else [] for log in logs]
    assert sorted(int(number) for log in computed for number in log) == list(range(200)), "each of them once"


def test_a_killed_process_leaves_whole_buckets_and_no_lock(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    killed = started(folder, tmp_path / "killed", 0.02)
    deadline = time.monotonic() + 60
    while len(list(folder.glob("*.npz"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    kept = sum(len(np.load(file)["units"]) for file in folder.glob("*.npz"))
    assert 5 <= kept < 200
    assert started(folder, tmp_path / "next", 0.0).wait(60) == 0
    assert len((tmp_path / "next").read_text().split()) == 200 - kept
    assert ReferenceStore(folder).get((7).to_bytes(2, "little") * 8) is not None
