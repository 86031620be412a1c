"""The engine that trains is the one that was asked for, or the run ends."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from support.stage_runs import SGD, Build
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from llmf_hydra.config.groups.launch import LaunchConfig
from llmf_hydra.errors import Refused, TrainingFailed
from llmf_hydra.training.parallelism import check_wrapper


@pytest.mark.parametrize("stage", ["sft", "dpo", "ppo"])
def test_a_process_that_nobody_joins_does_not_train_alone(stage: str, build: Build) -> None:
    reward = ["rlhf.reward_model_type=api", "rlhf.reward_model=http://127.0.0.1:9/"] if stage == "ppo" else []
    with pytest.raises(TrainingFailed, match=r"nproc_per_node=2 was asked for, and 1 train together"):
        build(f"stage={stage}", *SGD, *reward, "launch.nproc_per_node=2")


def test_each_process_needs_a_gpu_where_there_are_some(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(Refused, match=r"launch\.nproc_per_node=2: this machine shows 1 GPU, and each"):
        build("stage=sft", *SGD, "launch.nproc_per_node=2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(TrainingFailed):  # it goes on, and finds that no other process has joined
        build("stage=sft", *SGD, "launch.nproc_per_node=2")


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'door'}", world_size=1, rank=0)
    yield
    distributed.destroy_process_group()


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("processes", [1, 2])
def test_a_wrapper_stands_for_several_processes_and_for_no_other_number(processes: int) -> None:
    bare = nn.Linear(2, 2)
    shared = DistributedDataParallel(bare)
    right, wrong = (bare, shared) if processes == 1 else (shared, bare)
    launch = LaunchConfig(nproc_per_node=processes)
    check_wrapper(launch, right)
    with pytest.raises(TrainingFailed, match=type(wrong).__name__):
        check_wrapper(launch, wrong)
