"""What a checkpoint adds: a resumed run reports what the uninterrupted one reports."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.command_line import Cli
from support.stage_runs import SGD, Build

from llmf_hydra.errors import TrainingFailed
from llmf_hydra.training.metrics import MetricSums
from llmf_hydra.training.state import CheckpointState


def test_train_loss_and_objective_of_a_resumed_run_cover_the_whole_run(cli: Cli, tmp_path: Path) -> None:
    words = ["stage=sft", "model=tiny", "training.max_steps=6", "training.logging_steps=4", "training.save_steps=3",
             "training.eval_strategy=no", "data.val_size=0", "training.learning_rate=0.02", "training.plot_loss=false",
             "data.max_samples=40"]  # fmt: skip
    assert cli(*words, "hydra.run.dir=whole").returncode == 0
    done = cli(*words, "hydra.run.dir=resumed", "training.resume_from_checkpoint=whole/checkpoint-3")
    assert done.returncode == 0, done.stderr
    found = [
        json.loads((tmp_path / run / "manifest.json").read_text())["objective"]
        for run in ("whole", "resumed")
    ]
    assert found[0]["name"] == "train_loss" and found[0] == found[1]
    losses = [
        [line["loss"] for line in map(json.loads, (tmp_path / run / "log.jsonl").open()) if "loss" in line]
        for run in ("whole", "resumed")
    ]  # fmt: skip
    assert losses[0][-1:] == losses[1][-1:], "a line across the checkpoint holds all its steps"


@pytest.mark.parametrize("stage", ["dpo", "kto"])
def test_metrics_that_are_not_logged_yet_are_kept(stage: str, build: Build) -> None:
    words = [f"stage={stage}", *SGD, "training.max_steps=4", "training.logging_steps=4", "training.learning_rate=0.1",
             "training.logging_first_step=false", "training.save_strategy=steps", "training.save_steps=2"]  # fmt: skip
    whole, again = build(*words), build(*words)
    whole.train()
    again.train(resume_from_checkpoint=f"{whole.args.output_dir}/checkpoint-2")
    lines: list[dict[str, Any]] = [
        next(line for line in trainer.state.log_history if "loss" in line) for trainer in (whole, again)
    ]
    assert lines[0] == lines[1] and "rewards/margins" in lines[0]


def test_a_checkpoint_without_the_file_is_resumed_unless_a_part_needs_it(tmp_path: Path) -> None:
    sums = MetricSums()
    sums.add("loss", torch.tensor([1.0, 3.0]))
    sums.add("kl", torch.tensor([1.0, 3.0]), torch.tensor([False, True]))
    state = CheckpointState()
    state.register("metrics", sums)
    state.save(tmp_path / "checkpoint", rank=1)
    torch.load(tmp_path / "checkpoint" / "stage_state_1.pt", weights_only=True)
    again, fresh = CheckpointState(), MetricSums()
    again.register("metrics", fresh)
    again.load(tmp_path / "checkpoint", rank=0)
    assert fresh.take_means() == {}
    again.load(tmp_path / "checkpoint", rank=1)
    assert fresh.take_means() == {"kl": 3.0, "loss": 2.0}
    again.register("buffer", fresh, required=True)
    with pytest.raises(TrainingFailed, match="holds no state of buffer"):
        again.load(tmp_path / "checkpoint", rank=1)
