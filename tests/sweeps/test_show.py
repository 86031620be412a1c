"""`llmf sweep show` and `llmf sweep resume`: a study that is over, one that runs, one that was moved."""

import csv
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from support.command_line import Cli
from support.finished_study import FinishedStudy

from llmf_hydra.sweeps import show
from llmf_hydra.sweeps.study import Record

STEPS = 600  # of a trial that is to be seen while it runs
LONG = [
    "stage=sft",
    "model=tiny",
    "data.max_samples=40",
    f"training.max_steps={STEPS}",
    "training.logging_steps=1",
    "training.save_steps=1000",
    "training.seed=1,2",
    "hydra.sweep.dir=study",
]


def wait_for(what: Callable[[], bool], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_a_study_that_is_over(cli: Cli, study: FinishedStudy) -> None:
    assert "study:  " not in study.said  # its bar is for terminals
    done = cli("sweep", "show", str(study.folder), "--watch")  # a pipe gets it once
    assert done.returncode == 0 and "\x1b" not in done.stdout
    lines = done.stdout.splitlines()
    assert lines[0] == "study my <i>study: 6 trials, 5 done, 1 pruned"
    best = study.trials[0]
    assert lines[1].startswith(f"best: trial {best['number']}, objective {best['objective']:.6g}")
    assert lines[2] == f"  llmf-hydra {' '.join(best['overrides'])}"
    rows = [line.split()[0] for line in lines[4:10]]
    assert rows == [str(trial["number"]) for trial in study.trials]


def test_for_programs(cli: Cli, study: FinishedStudy) -> None:
    told = json.loads(cli("sweep", "show", str(study.folder), "--json").stdout)
    assert told["counts"] == {"done": 5, "pruned": 1} and told["over"] and told["running"] == []
    assert told["trials"] == study.trials and told["best"]["number"] == study.trials[0]["number"]
    rows = list(csv.DictReader(cli("sweep", "show", str(study.folder), "--csv").stdout.splitlines()))
    assert [int(row["trial"]) for row in rows] == [trial["number"] for trial in study.trials]
    for row, trial in zip(rows, study.trials, strict=True):
        assert float(row["training.learning_rate"]) == trial["params"]["training.learning_rate"]
        assert (float(row["objective"]) if row["objective"] else None) == trial["objective"]
        assert float(row["seconds"]) > 0


def test_bad_words_are_refused(cli: Cli, study: FinishedStudy, tmp_path: Path) -> None:
    for verb in ("show", "resume", "report"):
        done = cli("sweep", verb, str(tmp_path))
        assert done.returncode == 2 and "holds no study.json" in done.stderr and str(tmp_path) in done.stderr
        assert "Traceback" not in done.stderr and list(tmp_path.iterdir()) == []
    (tmp_path / "foreign").mkdir()
    plan = json.loads((study.folder / "study.json").read_text())
    for content in ("{", "[]", "{}", json.dumps(plan | {"overrides": None})):
        (tmp_path / "foreign" / "study.json").write_text(content)
        for verb in ("show", "resume", "report"):
            done = cli("sweep", verb, "foreign")
            assert done.returncode == 2 and "holds no study.json that can be read" in done.stderr, done.stderr
    assert [file.name for file in (tmp_path / "foreign").iterdir()] == ["study.json"]
    for words, part in (
        (["shwo"], "sweep shwo: is not one of show, resume, report;"),
        (["show"], "llmf sweep show --help"),
    ):
        done = cli("sweep", *words)
        assert done.returncode == 2 and part in done.stderr and "Traceback" not in done.stderr
    shutil.copytree(study.folder, tmp_path / "lost")
    (tmp_path / "lost" / "study.journal").unlink()
    gone = {**plan, "storage": f"journal:{tmp_path}/gone/study.journal"}
    (tmp_path / "lost" / "study.json").write_text(json.dumps(gone))
    done = cli("sweep", "show", "lost")
    assert done.returncode == 2 and "is no longer there" in done.stderr and not (tmp_path / "gone").exists()


def read_all(screen: int) -> str:
    """What a terminal was sent, whose writers are all gone."""
    drawn = b""
    with suppress(OSError):  # its end
        while more := os.read(screen, 65536):
            drawn += more
    return drawn.decode()


@pytest.mark.slow
def test_a_study_is_watched_stopped_moved_and_gone_on_with(
    cli: Cli, environment: dict[str, str], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "llmf_hydra"]
    below, errors = pty.openpty()
    termios.tcsetwinsize(errors, (24, 100))
    sweep = subprocess.Popen(
        [*command, "-m", *LONG], cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=errors
    )
    os.close(errors)
    log = tmp_path / "study" / "0" / "log.jsonl"
    wait_for(lambda: log.exists() and log.stat().st_size > 0)

    screen, terminal = pty.openpty()
    watching = subprocess.Popen(
        [*command, "sweep", "show", "study"], cwd=tmp_path, env=environment, stdout=terminal
    )
    os.close(terminal)
    drawn = b""
    while drawn.count(b"step ") < 2:
        drawn += os.read(screen, 65536)
    watching.send_signal(signal.SIGINT)
    with suppress(OSError):  # the terminal is gone with its last writer
        while more := os.read(screen, 65536):
            drawn += more
    assert watching.wait(timeout=20) == 0
    text = drawn.decode()
    assert f"/{STEPS}, loss " in text and "1 running, 1 waiting" in text
    assert "F\x1b[J" in text and text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")

    sweep.send_signal(signal.SIGINT)
    assert sweep.wait(timeout=60) == 130
    assert "study:   0%" in (bar := read_all(below)) and "0/2" in bar
    stopped = cli("sweep", "show", "study").stdout
    assert "nothing runs; go on with: llmf sweep resume study" in stopped and "1 killed" in stopped
    before = steps_of(log)

    moved = tmp_path / "elsewhere" / "under a new name"
    moved.parent.mkdir()
    (tmp_path / "study").rename(moved)
    gone_on = cli("sweep", "resume", str(moved), "hydra.sweeper.retries=1", cwd=moved.parent)
    assert gone_on.returncode == 0, gone_on.stdout + gone_on.stderr
    assert not (tmp_path / "study").exists()
    assert re.search(r"^0 .*under a new name/0$", gone_on.stdout, re.MULTILINE), gone_on.stdout
    fresh = cli("-m", "model=tiny", "training.seed=1", "hydra.sweep.dir='under a new name'", cwd=moved.parent)
    assert fresh.returncode == 2 and "holds a sweep already (the study study" in fresh.stderr
    assert "go on with it: llmf sweep resume 'under a new name'; or name another folder" in fresh.stderr
    told = json.loads(cli("sweep", "show", "under a new name", "--json", cwd=moved.parent).stdout)
    assert told["study"] == "study" and told["counts"] == {"done": 2}
    assert {trial["out"] for trial in told["trials"]} == {str(moved / "0"), str(moved / "1")}
    after = steps_of(moved / "0" / "log.jsonl")
    assert after[: len(before)] == before and after[len(before)] == before[-1] + 1 and after[-1] == STEPS


def steps_of(log: Path) -> list[int]:
    lines = map(json.loads, log.read_text(encoding="utf8").splitlines())
    return [line["step"] for line in lines if "loss" in line]


def test_a_secret_is_asked_for_again(cli: Cli, study: FinishedStudy, tmp_path: Path) -> None:
    folder = tmp_path / study.folder.name
    shutil.copytree(study.folder, folder)
    plan = json.loads((folder / "study.json").read_text())
    plan["overrides"].append("model.hf_hub_token=***")
    (folder / "study.json").write_text(json.dumps(plan))
    words = ["sweep", "resume", str(folder), "hydra.sweeper.allow_changes=true"]

    refused = cli(*words)
    assert refused.returncode == 2 and "model.hf_hub_token: is secret and not recorded" in refused.stderr
    assert "or set HF_TOKEN" in refused.stderr and "Traceback" not in refused.stderr
    token = "hf_abcdefghijklmnop"
    for given in (cli(*words, env={"HF_TOKEN": token}), cli(*words, f"model.hf_hub_token={token}")):
        assert given.returncode == 0, given.stderr
        assert "0 of 6 trials left" in given.stdout and token not in given.stdout + given.stderr
        assert "model.hf_hub_token=***" in given.stdout


def test_the_time_that_is_left() -> None:
    def trial(number: int, status: str, end: str | None = None) -> Record:
        start = None if status == "waiting" else "2026-01-01T00:00:00+00:00"
        return Record(number=number, status=status, started=start, ended=end and f"2026-01-01T{end}+00:00")

    ended = [trial(0, "done", "00:01:40"), trial(1, "pruned", "00:00:20"), trial(2, "failed", "00:00:01")]
    waiting = [trial(number, "waiting") for number in (3, 4, 5)]
    one, other = (show.Running(number, 1, 10, None, elapsed) for number, elapsed in ((6, 20.0), (7, 50.0)))
    assert show.seconds_left([*ended, *waiting], [one, other]) == pytest.approx((3 * 60 + 40 + 10) / 2)
    assert show.seconds_left(ended, [one]) == pytest.approx(40)
    assert show.seconds_left([*ended, *waiting], []) is None
    assert show.seconds_left(waiting, [one]) is None
