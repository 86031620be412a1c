"""Being stopped and killed: what is saved, which status is seen, and going on to the same end."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.command_line import Cli, log_of, losses, only_run

WORDS = ["stage=sft", "model=tiny", "training.max_steps=40", "training.logging_steps=1", "training.eval_strategy=no",
         "data.val_size=0", "training.save_steps=10", "training.learning_rate=0.01"]  # fmt: skip


EVALUATED = [
    "training.eval_strategy=steps",
    "training.eval_steps=1",
    "data.val_size=4",
    "method.lora_dropout=0.1",
]


def start(environment: dict[str, str], folder: Path, *more: str) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-m", "llmf_hydra", *WORDS, *more], cwd=folder, env=environment, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)  # fmt: skip


def wait_for_step(launcher: "subprocess.Popen[str]", folder: Path, step: int) -> Path:
    """The run's folder, once its log holds the step."""
    for _ in range(2400):
        assert launcher.poll() is None, launcher.communicate()
        for log in folder.glob("outputs/sft/*/log.jsonl"):
            if log.read_text(encoding="utf8").count("\n") >= step:
                return log.parent
        time.sleep(0.05)
    raise TimeoutError


def manifest(out: Path) -> dict[str, object]:
    return json.loads((out / "manifest.json").read_text(encoding="utf8"))


@pytest.mark.parametrize(
    ("number", "more"), [(signal.SIGINT, []), (signal.SIGTERM, EVALUATED)], ids=["Ctrl-C", "SIGTERM"]
)
def test_a_stopped_run_saves_its_state_and_resumes_to_the_same_end(
    number: signal.Signals, more: list[str], environment: dict[str, str], cli: Cli, tmp_path: Path
) -> None:
    launcher = start(environment, tmp_path, *more)
    out = wait_for_step(launcher, tmp_path, 4)
    launcher.send_signal(number)
    _, said = launcher.communicate(timeout=120)
    assert launcher.returncode == 130, said
    assert "llmf resume" in said and "Traceback" not in said
    assert manifest(out)["status"] == "killed"
    done = len(losses(out))
    assert 2 <= done < 40 and (out / f"checkpoint-{done}" / "trainer_state.json").exists()
    resumed = cli("resume", str(out))
    assert resumed.returncode == 0, resumed.stderr
    assert manifest(out)["status"] == "done"
    straight = tmp_path / "straight"
    straight.mkdir()
    assert cli(*WORDS, *more, cwd=straight).returncode == 0
    assert log_of(out) == log_of(only_run(straight, "sft"))


def test_a_killed_worker_leaves_its_log_and_the_right_status(
    environment: dict[str, str], cli: Cli, tmp_path: Path
) -> None:
    other = tmp_path / "outputs" / "sft" / "other"
    assert cli("job=check", "stage=sft", "model=tiny", f"hydra.run.dir={other}").returncode == 0
    before = {file.name: file.read_bytes() for file in other.iterdir()}
    launcher = start(environment, tmp_path)
    out = wait_for_step(launcher, tmp_path, 4)
    os.kill(int(str(manifest(out)["pid"])), signal.SIGKILL)
    launcher.communicate(timeout=60)
    assert launcher.returncode == 1
    assert manifest(out)["status"] == "killed"
    assert [line["step"] for line in log_of(out)] == list(range(1, len(log_of(out)) + 1))
    listed = cli("runs", "--all").stdout
    statuses = ("status", "done", "killed")
    assert [next(word for word in line.split() if word in statuses) for line in listed.splitlines()] == [
        *statuses
    ]
    assert {file.name: file.read_bytes() for file in other.iterdir()} == before


def test_a_run_whose_launcher_and_worker_are_both_gone_is_seen_as_killed(
    environment: dict[str, str], cli: Cli, tmp_path: Path
) -> None:
    launcher = start(environment, tmp_path)
    out = wait_for_step(launcher, tmp_path, 2)
    launcher.kill()
    os.kill(int(str(manifest(out)["pid"])), signal.SIGKILL)
    launcher.communicate()
    time.sleep(0.5)
    assert manifest(out)["status"] == "running"  # nobody was left to write it down
    assert "  killed  " in cli("runs").stdout.splitlines()[1]
    resumed = cli("resume", str(out))
    assert resumed.returncode == 0, resumed.stderr


def test_a_killed_launcher_stops_its_worker_which_saves(environment: dict[str, str], tmp_path: Path) -> None:
    launcher = start(environment, tmp_path)
    out = wait_for_step(launcher, tmp_path, 3)
    launcher.kill()
    launcher.communicate(timeout=60)
    for _ in range(400):
        if manifest(out)["status"] == "killed":
            break
        time.sleep(0.05)
    assert manifest(out)["status"] == "killed" and list(out.glob("checkpoint-*"))
    assert len(losses(out)) < 40


def test_a_second_signal_kills_a_worker_that_does_not_answer_and_the_run_was_interrupted(
    environment: dict[str, str], tmp_path: Path
) -> None:
    launcher = start(environment, tmp_path)
    for _ in range(2400):
        files = list(tmp_path.glob("outputs/sft/*/manifest.json"))
        if files and "pid" in manifest(files[0].parent):
            break
        time.sleep(0.02)
    out = files[0].parent
    os.kill(int(str(manifest(out)["pid"])), signal.SIGSTOP)  # it loads, and answers nothing
    for _ in range(2):
        launcher.send_signal(signal.SIGINT)
        time.sleep(0.5)
    _, said = launcher.communicate(timeout=60)
    assert launcher.returncode == 130, said
    assert (manifest(out)["status"], manifest(out)["exit_code"]) == ("killed", 130)


@pytest.mark.parametrize("ending", ["2>&1 | head -1", ">&- 2>&-", "> /dev/null 2>&-"])
def test_a_run_outlives_the_reader_of_its_output(
    ending: str, environment: dict[str, str], tmp_path: Path
) -> None:
    words = " ".join([*WORDS[:2], "training.max_steps=2", *WORDS[3:]])
    line = f"{sys.executable} -m llmf_hydra {words} hydra.run.dir=run {ending}"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", line], cwd=tmp_path, env=environment,
                          capture_output=True, text=True, timeout=120, check=False)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done
    assert len(done.stdout.splitlines()) == (1 if "head" in ending else 0)
    assert manifest(tmp_path / "run")["status"] == "done" and len(losses(tmp_path / "run")) == 2
