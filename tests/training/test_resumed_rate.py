"""A run that starts from another's checkpoint follows the learning rate of its own config, and says so in its log."""

import json
from pathlib import Path

import pytest
from support.command_line import Cli

WORDS = ("stage=sft", "model=tiny", "training.max_steps=4", "training.save_steps=2", "training.logging_steps=1",
         "training.eval_strategy=no", "data.val_size=0", "training.plot_loss=false",
         "training.lr_scheduler_type=constant")  # fmt: skip


def steps(run: Path) -> dict[int, dict[str, float]]:
    lines = map(json.loads, (run / "log.jsonl").read_text(encoding="utf8").splitlines())
    return {line["step"]: line for line in lines if "loss" in line}


def test_the_learning_rate_is_that_of_the_config(cli: Cli, tmp_path: Path) -> None:
    first = cli(*WORDS, "training.learning_rate=0.1", "hydra.run.dir=first")
    assert first.returncode == 0, first.stderr
    start = f"training.resume_from_checkpoint={tmp_path / 'first' / 'checkpoint-2'}"
    for name, rate in (("same", 0.1), ("slower", 1e-5)):
        done = cli(*WORDS, start, f"training.learning_rate={rate}", f"hydra.run.dir={name}")
        assert done.returncode == 0, done.stderr
    before, same, slower = (steps(tmp_path / name) for name in ("first", "same", "slower"))
    assert [slower[step]["learning_rate"] for step in (3, 4)] == pytest.approx([1e-5, 1e-5])
    assert [same[step]["learning_rate"] for step in (3, 4)] == pytest.approx([0.1, 0.1])
    assert same[4]["loss"] == pytest.approx(before[4]["loss"], rel=1e-6)
    assert slower[3]["loss"] == pytest.approx(before[3]["loss"], rel=1e-6)  # the same weights
    assert abs(slower[4]["loss"] - before[4]["loss"]) > 1e-4  # moved by another rate
