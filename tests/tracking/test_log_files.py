"""The run's own files: whole lines, also after kill -9, and strict JSON."""

import json
import math
import resource
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from llmf_hydra.tracking.contract import DONE
from llmf_hydra.tracking.files import FilesTracker, read_log, write_whole

ENDLESS = """
import sys
from pathlib import Path
from llmf_hydra.tracking.contract import RunInfo
from llmf_hydra.tracking.files import FilesTracker

tracker = FilesTracker()
tracker.start(RunInfo(out=Path(sys.argv[1]), outputs=Path(sys.argv[1])))
step = 0
while True:
    step += 1
    tracker.log({"loss": 1 / step, "grad_norm": 0.1}, step)
    print(step, flush=True)
"""


def test_a_line_a_step_and_the_last_values_in_the_end(make_info):
    info = make_info()
    tracker = FilesTracker()
    tracker.start(info)
    tracker.log({"loss": 0.7, "rewards/accuracies": 0.5}, 10)
    tracker.log({"loss": 0.6}, 20)
    tracker.finish(DONE, {"loss": 0.6, "train_runtime": 3.5}, [])

    lines = [json.loads(line) for line in (info.out / "log.jsonl").read_text().splitlines()]
    assert [{k: v for k, v in line.items() if k != "time"} for line in lines] == [
        {"step": 10, "loss": 0.7, "rewards/accuracies": 0.5},
        {"step": 20, "loss": 0.6},
    ]
    assert abs(lines[0]["time"] - time.time()) < 60
    assert json.loads((info.out / "metrics.json").read_text()) == {
        "step": 20,
        "loss": 0.6,
        "train_runtime": 3.5,
    }
    assert sorted(f.name for f in info.out.iterdir()) == ["log.jsonl", "metrics.json"]


def test_a_line_is_on_disk_when_log_returns(make_info):
    info = make_info()
    tracker = FilesTracker()
    tracker.start(info)
    tracker.log({"loss": 0.7}, 1)
    assert [record["loss"] for record in read_log(info.out / "log.jsonl")] == [0.7]


def test_kill_9_leaves_every_line_that_was_written(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", ENDLESS, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    said = [int(process.stdout.readline()) for _ in range(500)]
    process.kill()
    said += [int(line) for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
    assert process.wait() == -9
    process.stdout.close()

    lines = (tmp_path / "log.jsonl").read_text().splitlines(keepends=True)
    assert all(line.endswith("\n") for line in lines)
    steps = [json.loads(line)["step"] for line in lines]
    assert steps[: len(said)] == said
    assert len(steps) - len(said) in (0, 1)  # it may have died between writing a line and telling of it
    assert steps == list(range(1, len(steps) + 1))


def test_a_resumed_run_goes_on_below_and_drops_a_torn_line(make_info):
    info = make_info()
    (info.out / "log.jsonl").write_text('{"time": 1.0, "step": 10, "loss": 0.7}\n{"time": 2.0, "ste')
    assert [record["step"] for record in read_log(info.out / "log.jsonl")] == [10]
    tracker = FilesTracker()
    tracker.start(info)
    tracker.log({"loss": 0.6}, 20)
    assert [record["step"] for record in read_log(info.out / "log.jsonl")] == [10, 20]


def test_spoiled_lines_are_made_up_for_by_a_resumed_run(make_info):
    info = make_info()
    tracker = FilesTracker()
    tracker.start(info)
    for step in (1, 2, 3):
        tracker.log({"loss": 1 / step}, step)
    log = info.out / "log.jsonl"
    first, _, third = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(first + b"\0\0\0\n==> no record\n[2]\n" + third)
    assert [record["step"] for record in read_log(log)] == [1, 3]

    tracker = FilesTracker()
    tracker.start(replace(info, logged=({"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5})))
    tracker.log({"loss": 0.3}, 3)
    assert [(record["step"], record["loss"]) for record in read_log(log)] == [(1, 1.0), (2, 0.5), (3, 0.3)]


def test_numbers_that_are_not_finite_stay_readable_json(make_info):
    info = make_info()
    tracker = FilesTracker()
    tracker.start(info)
    tracker.log({"loss": math.nan, "grad_norm": math.inf}, 1)

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    line = json.loads((info.out / "log.jsonl").read_text(), parse_constant=refuse)
    assert (line["loss"], line["grad_norm"]) == ("nan", "inf")
    (record,) = read_log(info.out / "log.jsonl")
    assert math.isnan(record["loss"])
    assert record["grad_norm"] == math.inf


def test_a_file_that_can_not_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "metrics.json"
    write_whole(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "new \ud800")
    assert path.read_text() == "old"
    assert [f.name for f in tmp_path.iterdir()] == ["metrics.json"]


def test_a_line_that_does_not_fit_on_the_disk_is_an_error(make_info):
    info = make_info()
    tracker = FilesTracker()
    tracker.start(info)
    tracker.log({"loss": 0.7}, 1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((info.out / "log.jsonl").stat().st_size + 5, limits[1]))
    try:
        with pytest.raises(OSError, match="No space left"):
            tracker.log({"loss": 0.7}, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [record["step"] for record in read_log(info.out / "log.jsonl")] == [1]
