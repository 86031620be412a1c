"""Several processes that train as one: the same steps, one set of files, and one end."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.command_line import Cli
from support.killing import MARK, kill_all

from llmf_hydra.runs import warm

SHARED = ["model=tiny", "training.max_steps=3", "training.logging_steps=1", "training.disable_shuffling=true",
          "optimizer=sgd", "training.learning_rate=0.5", "training.lr_scheduler_type=constant",
          "training.warmup_ratio=0", "training.max_grad_norm=0", "training.plot_loss=false",
          "training.eval_strategy=steps", "training.eval_steps=3", "training.save_strategy=no",
          "data.max_samples=60", "data.val_size=21", "training.per_device_eval_batch_size=4"]  # fmt: skip
LONG = ["stage=sft", "model=tiny", "training.max_steps=60", "training.logging_steps=1", "training.eval_strategy=no",
        "data.val_size=0", "training.save_steps=20", "training.learning_rate=0.01", "training.plot_loss=false",
        "launch.nproc_per_node=2", "hydra.run.dir=run"]  # fmt: skip
SLOW = pytest.mark.slow


def log_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf8").splitlines()]


def values(out: Path, name: str) -> list[float]:
    return [line[name] for line in log_of(out) if name in line]


def manifest(out: Path) -> dict[str, Any]:
    return json.loads((out / "manifest.json").read_text(encoding="utf8"))


# KTO pairs the answers of a process, and at evaluation both losses estimate the divergence batch by batch: the
# estimates of two processes are others.
@pytest.mark.parametrize(
    ("words", "near"),
    [
        (["stage=sft"], 1e-5),
        pytest.param(["stage=dpo"], 1e-5, marks=SLOW),
        pytest.param(["stage=dpo", "rlhf.pref_loss=kto_pair"], 2e-3, marks=SLOW),
        pytest.param(["stage=kto"], 5e-3, marks=SLOW),
        pytest.param(["stage=rm"], 1e-5, marks=SLOW),
        pytest.param(["stage=pt", "method=full", "data.packing=false"], 1e-5, marks=SLOW),
        pytest.param(["stage=dpo", "method=freeze"], 1e-5, marks=SLOW),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_two_processes_take_the_steps_of_one(words: list[str], near: float, cli: Cli, tmp_path: Path) -> None:
    """A batch that is shared gives the same losses; 21 rows are evaluated once each."""
    one = cli(*words, *SHARED, "training.per_device_train_batch_size=4", "hydra.run.dir=one")
    two = cli(*words, *SHARED, "training.per_device_train_batch_size=2", "launch.nproc_per_node=2",
              "hydra.run.dir=two")  # fmt: skip
    assert one.returncode == two.returncode == 0, two.stderr
    for name in ("loss", "eval_loss"):
        expected = values(tmp_path / "one", name)
        assert len(expected) in (1, 3)
        assert values(tmp_path / "two", name) == pytest.approx(expected, rel=near)
    assert two.stdout.count("rows to train on") == 1 and "Warning" not in two.stderr
    assert manifest(tmp_path / "two")["status"] == "done"


@SLOW
def test_ppo_is_shared_too(cli: Cli, tmp_path: Path) -> None:
    """Each process answers prompts of its own; what is saved holds the value head and resumes."""
    rm = cli("stage=rm", "model=tiny", "training.max_steps=1", "training.eval_strategy=no", "data.val_size=0",
             "training.save_strategy=no", "hydra.run.dir=rm", "data.max_samples=16")  # fmt: skip
    assert rm.returncode == 0, rm.stderr
    done = cli("stage=ppo", "model=tiny", "rlhf.reward_model=rm/final", "training.max_steps=4", "data.max_samples=24",
               "training.logging_steps=1", "data.val_size=5", "training.eval_strategy=steps", "training.eval_steps=4",
               "generation.max_new_tokens=4", "rlhf.ppo_epochs=2", "training.learning_rate=0.01",
               "launch.nproc_per_node=2", "hydra.run.dir=run")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (
        len(values(tmp_path / "run", "objective/kl")) == 2 and len(values(tmp_path / "run", "eval_loss")) == 1
    )
    assert (tmp_path / "run" / "checkpoint-4" / "stage_state_1.pt").exists()
    assert (tmp_path / "run" / "final" / "value_head.safetensors").exists()


def launched(environment: dict[str, str], folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "llmf_hydra", *LONG],
        cwd=folder,
        env={**environment, warm.WORKERS: ""},  # `workers` knows those that are started by name
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def until(true: Callable[[], bool]) -> None:
    """Wait until it is true, two minutes at most."""
    for _ in range(2400):
        if true():
            return
        time.sleep(0.05)
    raise TimeoutError


def start(environment: dict[str, str], folder: Path) -> "subprocess.Popen[str]":
    """A launcher whose run has logged some steps."""
    launcher = launched(environment, folder)
    log = folder / "run" / "log.jsonl"

    def trains() -> bool:
        assert launcher.poll() is None, launcher.communicate()
        return log.exists() and log.read_text(encoding="utf8").count("\n") >= 4

    until(trains)
    return launcher


def workers(folder: Path) -> list[int]:
    """The run's processes, the main one first."""
    main = manifest(folder / "run")["pid"]
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"llmf_hydra.worker" in command and str(folder / "run").encode() in command:
            found.append(int(process.name))
    return sorted(found, key=lambda pid: pid != main)


@SLOW
def test_a_stopped_run_is_saved_by_all_and_goes_on(
    environment: dict[str, str], cli: Cli, tmp_path: Path
) -> None:
    launcher = start(environment, tmp_path)
    launcher.send_signal(signal.SIGINT)
    _, said = launcher.communicate(timeout=120)
    assert launcher.returncode == 130 and said.count("llmf resume") == 1, said
    assert manifest(tmp_path / "run")["status"] == "killed" and workers(tmp_path) == []
    stopped = len(values(tmp_path / "run", "loss"))
    checkpoint = tmp_path / "run" / f"checkpoint-{stopped}"
    assert (checkpoint / "rng_state_0.pth").exists() and (checkpoint / "rng_state_1.pth").exists()
    assert cli("resume", "run").returncode == 0
    straight = cli(*LONG[:-1], "hydra.run.dir=straight")
    assert straight.returncode == 0
    assert values(tmp_path / "run", "loss") == values(tmp_path / "straight", "loss")


@SLOW
def test_two_processes_that_are_killed_go_on_to_the_same_bytes(
    environment: dict[str, str], cli: Cli, tmp_path: Path
) -> None:
    """SIGKILL to the launcher and both workers at once, twice: between two checkpoints, and again after the resume."""
    mark, out = str(tmp_path), tmp_path / "run"
    env = {**environment, MARK: mark, warm.WORKERS: ""}  # no server, from which nothing could be told apart
    words = [*LONG, "training.save_steps=10", "method.lora_dropout=0.1"]
    for command, lines in (([*words], 16), (["resume", "run"], 35)):
        launcher = subprocess.Popen([sys.executable, "-m", "llmf_hydra", *command], cwd=tmp_path, env=env, text=True,
                                    stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)  # fmt: skip
        until(lambda lines=lines: (out / "log.jsonl").exists() and len(log_of_whole_lines(out)) >= lines)
        kill_all(mark)
        assert launcher.wait() == -signal.SIGKILL, launcher.communicate()
    last = max(int(folder.name.partition("-")[2]) for folder in out.glob("checkpoint-*"))
    assert 30 <= last < 60
    resumed = cli("resume", "run")
    assert resumed.returncode == 0 and f"checkpoint-{last}" in resumed.stdout, resumed.stderr
    straight = cli(*words[:-3], "training.save_steps=10", "method.lora_dropout=0.1", "hydra.run.dir=straight")
    assert straight.returncode == 0, straight.stderr
    assert values(out, "loss") == values(tmp_path / "straight", "loss") and len(values(out, "loss")) == 60
    weights = [folder / "final" / "adapter_model.safetensors" for folder in (out, tmp_path / "straight")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def log_of_whole_lines(out: Path) -> list[str]:
    """The lines of a log that is being written."""
    return (out / "log.jsonl").read_text(encoding="utf8").splitlines()


@pytest.mark.parametrize(
    "which", [pytest.param(0, marks=SLOW, id="the main one"), pytest.param(1, marks=SLOW, id="the other")]
)
def test_a_process_that_dies_ends_them_all(which: int, environment: dict[str, str], tmp_path: Path) -> None:
    launcher = start(environment, tmp_path)
    os.kill(workers(tmp_path)[which], signal.SIGKILL)
    begun = time.monotonic()
    launcher.communicate(timeout=60)
    assert time.monotonic() - begun < 20
    assert launcher.returncode == 1 and workers(tmp_path) == []
    assert manifest(tmp_path / "run")["status"] == "killed"


@pytest.mark.parametrize(
    "waited_for", [pytest.param(False, id="at once"), pytest.param(True, id="waited for", marks=SLOW)]
)
def test_a_process_that_is_stopped_while_it_loads_ends_them_all(
    waited_for: bool, environment: dict[str, str], tmp_path: Path
) -> None:
    """Also where the main one has loaded already and waits for the other, as torch would do for minutes."""
    launcher = launched(environment, tmp_path)
    out = tmp_path / "run"
    until(lambda: (out / "manifest.json").exists() and manifest(out)["status"] == "running")
    until(lambda: len(workers(tmp_path)) == 2)
    main, other = workers(tmp_path)
    if waited_for:
        os.kill(other, signal.SIGSTOP)
        until((out / "data.json").exists)
        until(lambda: is_idle(main))
        assert launcher.poll() is None and (out / "data.json").exists()
    os.kill(other, signal.SIGTERM)
    os.kill(other, signal.SIGCONT)
    begun = time.monotonic()
    _, said = launcher.communicate(timeout=60)
    assert time.monotonic() - begun < 8
    assert launcher.returncode == 130 and "Traceback" not in said, said
    assert workers(tmp_path) == [] and manifest(out)["status"] == "killed"
    assert not list(out.glob("checkpoint-*"))
    assert not (out / "log.jsonl").exists() or log_of(out) == []


def is_idle(pid: int) -> bool:
    """Whether a process uses (nearly) no processor time for a second."""
    before = processor_seconds(pid)
    time.sleep(1)
    return processor_seconds(pid) - before < 0.05


def processor_seconds(pid: int) -> float:
    """Processor time that a process has used."""
    used = Path(f"/proc/{pid}/stat").read_text(encoding="utf8").rpartition(")")[2].split()[11:13]
    return sum(map(int, used)) / os.sysconf("SC_CLK_TCK")


def test_a_launcher_in_several_processes_is_refused(cli: Cli, tmp_path: Path) -> None:
    refused = cli("stage=sft", "model=tiny", env={"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"})
    assert refused.returncode == 2 and list(tmp_path.iterdir()) == []
    assert "WORLD_SIZE=2" in refused.stderr and "launch.nproc_per_node=2" in refused.stderr
