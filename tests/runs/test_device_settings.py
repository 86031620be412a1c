"""Settings of devices: what the config hands to the workers (launch.optim_torch, launch.ascend_rt_visible_devices), and
what is set in them (launch.npu_jit_compile, tracking.record_vram).
"""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from llmf_hydra.config.groups.launch import LaunchConfig
from llmf_hydra.runs.processes import launch_environment
from llmf_hydra.tracking.callback import TrackerCallback

PLAIN = {
    "verbosity": "INFO",
    "omp_wait_policy": "PASSIVE",
    "omp_num_threads": None,
    "cuda_visible_devices": None,
}


def launch(**values: object) -> LaunchConfig:
    off = {"optim_torch": False, "ascend_rt_visible_devices": None}
    return LaunchConfig(**{**PLAIN, **off, **values})  # type: ignore[arg-type]


def test_settings_of_devices_reach_the_workers() -> None:
    plain = launch_environment(launch(), {})
    assert not {"PYTORCH_ALLOC_CONF", "ASCEND_RT_VISIBLE_DEVICES"} & plain.keys()
    told = launch_environment(launch(optim_torch=True, ascend_rt_visible_devices="0,1"), {})
    assert told["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"
    assert told["TORCH_NCCL_AVOID_RECORD_STREAMS"] == "1" and told["ASCEND_RT_VISIBLE_DEVICES"] == "0,1"
    own = launch_environment(launch(optim_torch=True), {"PYTORCH_ALLOC_CONF": "max_split_size_mb:64"})
    assert own["PYTORCH_ALLOC_CONF"] == "max_split_size_mb:64"


def test_the_allocator_takes_what_optim_torch_says() -> None:
    """A wrong name or form of the variable is an error of PyTorch's own, also without a GPU."""
    env = launch_environment(launch(optim_torch=True), {"PATH": "/usr/bin:/bin"})
    done = subprocess.run(
        [sys.executable, "-c", "import torch; torch.zeros(1)"], env=env, capture_output=True
    )
    assert done.returncode == 0 and done.stderr == b"", done.stderr.decode()


@pytest.mark.parametrize("vram", [True, False])
def test_gpu_memory_is_logged_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch, vram: bool) -> None:
    from transformers import TrainerControl, TrainerState, TrainingArguments

    logged: list[dict[str, float]] = []

    class Trackers:
        def log(self, metrics: dict[str, float], step: int) -> None:
            logged.append(metrics)

    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3 * 2**30)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: 4 * 2**30)
    callback = TrackerCallback(Trackers(), vram=vram)  # type: ignore[arg-type]
    state = TrainerState(global_step=1, max_steps=2, is_world_process_zero=True)
    callback.on_log(TrainingArguments(), state, TrainerControl(), {"loss": 1.0})
    assert logged == [{"loss": 1.0, **({"vram_allocated": 3.0, "vram_reserved": 4.0} if vram else {})}]


@pytest.mark.parametrize("wanted", [True, False])
def test_the_compile_mode_of_npus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wanted: bool) -> None:
    """No NPU here: a package in its place notes what it is told."""
    from llmf_hydra.models import npu

    (tmp_path / "torch_npu.py").write_text(
        "import torch, types\nsaid = []\n"
        "torch.npu = types.SimpleNamespace(set_compile_mode=lambda jit_compile: said.append(jit_compile))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(torch, "npu", None, raising=False)
    monkeypatch.delitem(sys.modules, "torch_npu", raising=False)
    npu.set_compile_mode(wanted)
    assert sys.modules["torch_npu"].said == [wanted]
    del sys.modules["torch_npu"]
