"""A table of a run, such as answers with their rewards, in the trackers' own stores: whole, and once."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from support.wandb_files import history, logs, of_file

from llmf_hydra.tracking.contract import RunInfo, Table
from llmf_hydra.tracking.mlflow import MlflowTracker
from llmf_hydra.tracking.open import Trackers
from llmf_hydra.tracking.wandb import WandbTracker

COLUMNS = {"step": [3, 3], "completion": ["yes", "<b>no</b> \N{SNOWMAN}"], "reward": [1.0, None]}
NAMES = list(COLUMNS)
LINES = [list(row) for row in zip(*COLUMNS.values(), strict=True)]


def test_a_table_is_sent_whole_and_not_again_after_a_resume(make_tracking: Any, make_info: Any) -> None:
    info: RunInfo = make_info()
    tracking = make_tracking(wandb=True, mlflow=True)
    tables = [Table("completions", info.out / f"{step:07d}.parquet", step) for step in (3, 5)]
    for table in tables:
        pq.write_table(pa.table(COLUMNS), table.file)
    with Trackers([MlflowTracker(tracking), WandbTracker(tracking)]) as trackers:
        trackers.start(info)
        trackers.log({"loss": 0.7}, 4)
        trackers.log_table(tables[0])
        trackers.log_table(Table("completions", info.out / "taken_away.parquet", 4))
    time.sleep(1.1)  # wandb names a folder by the second
    with Trackers([MlflowTracker(tracking), WandbTracker(tracking)]) as trackers:
        trackers.start(replace(info, logged=()))
        trackers.log_table(tables[0])
        trackers.log({"loss": 0.6}, 6)
        trackers.log_table(tables[1])

    found = sorted(info.outputs.glob("mlartifacts/*/artifacts/completions/*.json"))
    assert [file.name for file in found] == ["0000003.json", "0000005.json"]
    for file in found:
        held = json.loads(file.read_text(encoding="utf8"))
        assert (held["columns"], held["data"]) == (NAMES, LINES)
    until_written(info.out)
    media = [file for log in logs(info.out) for file in sorted(log.parent.glob("files/media/table/*.json"))]
    assert [shown(file) for file in media] == [(NAMES, LINES)] * 2
    steps = [row["_step"] for log in logs(info.out) for row in history(log) if "completions" in row]
    assert steps == [4, 6]


def until_written(out: Path) -> None:
    """Wait for wandb's own process, which writes the last records after `finish` has returned."""
    end = time.monotonic() + 20
    while not all(any(r.HasField("exit") for r in of_file(log)) for log in logs(out)):
        assert time.monotonic() < end
        time.sleep(0.05)


def shown(file: Path) -> tuple[list[str], list[list[Any]]]:
    """Names and lines of a table of wandb's."""
    held = json.loads(file.read_text(encoding="utf8"))
    return held["columns"], held["data"]
