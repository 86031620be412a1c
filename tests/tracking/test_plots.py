"""Curves from the log alone."""

import json
import math
import struct
from pathlib import Path

import pytest

from llmf_hydra.tracking.plots import _series, draw, smooth


def write_log(path: Path, records: list[dict]) -> Path:
    path.write_text("".join(json.dumps({"time": 1.0, **record}) + "\n" for record in records))
    return path


def size(png: Path) -> tuple[int, int]:
    head = png.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", head[16:24])


def test_a_picture_for_each_metric_the_log_has(tmp_path):
    records = [
        {
            "step": step,
            "loss": 0.7 * math.exp(-step / 100),
            "rewards/accuracies": 0.5 + step / 400,
            "grad_norm": 1.0,
        }
        for step in range(0, 200, 2)
    ]
    records += [{"step": 100, "eval_loss": 0.5}, {"warning": "x"}, {"step": 198, "eval_loss": 0.4}]
    drawn = draw(write_log(tmp_path / "log.jsonl", records), tmp_path)
    assert [file.name for file in drawn] == ["training_loss.png", "eval_loss.png", "rewards_accuracies.png"]
    assert {size(file) for file in drawn} == {(840, 480)}


def test_no_metrics_no_picture(tmp_path):
    assert draw(write_log(tmp_path / "log.jsonl", []), tmp_path) == []
    assert draw(write_log(tmp_path / "log.jsonl", [{"warning": "x"}]), tmp_path) == []


def test_a_loss_that_is_not_finite_is_drawn_around(tmp_path):
    records = [{"step": step, "loss": "nan" if step == 5 else 1.0} for step in range(30)]
    (file,) = draw(write_log(tmp_path / "log.jsonl", records), tmp_path)
    assert size(file) == (840, 480)


def test_a_step_done_again_counts_as_it_was_the_last_time():
    records = [
        {"step": 1, "loss": 3.0},
        {"step": 2, "loss": 2.0},
        {"step": 2, "loss": 1.0},
        {"step": 1, "kl": 0.0},
    ]
    assert list(_series(records, "loss").items()) == [(1, 3.0), (2, 1.0)]


def test_smoothing_keeps_the_level_and_passes_over_nan():
    assert smooth([2.0] * 50) == pytest.approx([2.0] * 50)
    smoothed = smooth([0.0] * 50 + [1.0] * 50)
    assert smoothed[49] == 0.0
    assert 0.0 < smoothed[50] < 0.2
    assert smoothed[99] == pytest.approx(1.0, abs=0.01)
    assert not any(math.isnan(value) for value in smooth([1.0, math.nan, 2.0]))
