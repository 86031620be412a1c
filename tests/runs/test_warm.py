"""Forked workers: the same bytes as cold ones, never where something differs, and nothing dies with them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.command_line import Cli, log_of, worker_environment

from llmf_hydra.runs import warm
from llmf_hydra.runs.surroundings import fingerprint

RUN = ["stage=sft", "model=tiny", "training.max_steps=3", "training.logging_steps=1", "training.learning_rate=0.01",
       "data.max_samples=24", "data.val_size=4", "training.eval_steps=3", "method.lora_dropout=0.1",
       "training.plot_loss=false"]  # fmt: skip
CHECK = ["job=check", "stage=sft", "model=tiny"]


def manifest(out: Path) -> dict[str, Any]:
    return json.loads((out / "manifest.json").read_text(encoding="utf8"))


def test_a_forked_run_gives_the_bytes_of_a_cold_one(cli: Cli, tmp_path: Path) -> None:
    forked, cold = cli(*RUN, "hydra.run.dir=forked"), cli(*RUN, "hydra.run.dir=cold", cold=True)
    assert forked.returncode == cold.returncode == 0, forked.stderr + cold.stderr
    assert manifest(tmp_path / "forked")["warm"] is True and manifest(tmp_path / "cold")["warm"] is False
    assert log_of(tmp_path / "forked") == log_of(tmp_path / "cold")
    for name in ("adapter_model.safetensors", "adapter_config.json", "tokenizer.json"):
        same = [(tmp_path / run / "final" / name).read_bytes() for run in ("forked", "cold")]
        assert same[0] == same[1], name
    lines = [
        [line for line in done.stdout.splitlines() if not line.startswith("step")] for done in (forked, cold)
    ]
    assert len(lines[0]) == len(lines[1]) and forked.stderr == cold.stderr


@pytest.mark.slow
def test_a_worker_whose_surroundings_differ_is_started_cold(cli: Cli, tmp_path: Path) -> None:
    found = {}
    for name, words, env in (
        ("alike", [], {"LLMF_OTHER": "read later"}),
        ("threads", ["launch.omp_num_threads=2"], {}),
        ("variable", [], {"HF_HOME": str(tmp_path / "hub")}),
        ("no server", [], {warm.WORKERS: str(tmp_path / "gone")}),
    ):
        done = cli(*CHECK, *words, f"hydra.run.dir={name.replace(' ', '_')}", env=env)
        assert done.returncode == 0, done.stderr
        found[name] = manifest(tmp_path / name.replace(" ", "_"))["warm"]
    assert found == {"alike": True, "threads": False, "variable": False, "no server": False}


def test_what_a_library_reads_at_its_import_is_in_the_fingerprint() -> None:
    plain = fingerprint({})
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "PYTHONHASHSEED", "HF_HOME", "TRANSFORMERS_VERBOSITY",
                 "CUDA_VISIBLE_DEVICES", "LD_PRELOAD", "PYTHONPATH", "HOME", "ANYTHING"):  # fmt: skip
        assert fingerprint({name: "1"}) != plain, name
    assert fingerprint({"LLMF_CACHE": "1", "RANK": "1", "HYDRA_FULL_ERROR": "1"}) == plain


@pytest.mark.slow
def test_a_server_ends_with_its_owner_and_its_workers_save(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """The owner is killed in the middle of a run; the run is saved, and no process is left."""
    plain = {name: value for name, value in environment.items() if name != warm.WORKERS}
    endless = ["stage=sft", "model=tiny", "training.max_steps=1000000", "training.logging_steps=1",
               "training.eval_strategy=no", "data.val_size=0", "training.seed=1,2",
               "hydra.sweep.dir=study"]  # fmt: skip
    sweep = subprocess.Popen([sys.executable, "-m", "llmf_hydra", "-m", *endless], cwd=tmp_path, env=plain,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    out = tmp_path / "study" / "0"
    wait_until(lambda: (out / "log.jsonl").exists() and (out / "log.jsonl").read_text().count("\n") > 2)
    worker = manifest(out)
    assert worker["warm"] is True
    server = parent(worker["pid"])
    assert server != sweep.pid
    sweep.kill()
    sweep.wait()
    wait_until(lambda: manifest(out)["status"] == "killed")
    assert list(out.glob("checkpoint-*"))
    wait_until(lambda: not Path(f"/proc/{server}").exists())


def test_a_killed_worker_harms_neither_the_server_nor_the_next(
    environment: dict[str, str], cli: Cli, tmp_path: Path
) -> None:
    words = ["stage=sft", "model=tiny", "training.max_steps=1000000", "training.logging_steps=1",
             "training.eval_strategy=no", "data.val_size=0", "hydra.run.dir=run"]  # fmt: skip
    launcher = subprocess.Popen([sys.executable, "-m", "llmf_hydra", *words], cwd=tmp_path, env=environment,
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    log = tmp_path / "run" / "log.jsonl"
    wait_until(lambda: log.exists() and log.stat().st_size > 0)
    os.kill(manifest(tmp_path / "run")["pid"], signal.SIGKILL)
    assert launcher.wait(20) == 1 and manifest(tmp_path / "run")["status"] == "killed"
    assert cli(*CHECK, "hydra.run.dir=next").returncode == 0
    assert manifest(tmp_path / "next")["warm"] is True


def test_a_worker_that_was_stopped_before_it_is_forked_never_is(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """The server still imports for it, and the stop doesn't wait for that."""
    words = ["stage=sft", "model=tiny", "hydra.run.dir=run"]
    base = {name: value for name, value in environment.items() if name != warm.WORKERS}
    with warm.started(worker_environment(base)) as address:
        launcher = subprocess.Popen([sys.executable, "-m", "llmf_hydra", *words], cwd=tmp_path,
                                    env={**base, warm.WORKERS: address},
                                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        wait_until(lambda: (tmp_path / "run" / "manifest.json").exists())
        time.sleep(0.3)
        launcher.send_signal(signal.SIGINT)
        assert launcher.wait(20) == 130
    assert manifest(tmp_path / "run")["status"] == "killed"
    assert "pid" not in manifest(tmp_path / "run")


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text(encoding="utf8").rpartition(")")[2].split()[1])


def wait_until(seen: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not seen():
        assert time.monotonic() < end
        time.sleep(0.05)
