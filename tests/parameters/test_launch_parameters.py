"""Group `launch`: what a worker finds in its environment, and how strict the start is; the hub's token."""

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.parameter_runs import Changes, config, parameter

from llmf_hydra import refusals
from llmf_hydra.config import record
from llmf_hydra.runs import folder as runs
from llmf_hydra.runs import processes as process
from llmf_hydra.runs.manifest import first_manifest

# A worker whose job is to say what it sees.
WORKER = """
import json, logging, os, sys, types
from pathlib import Path
from llmf_hydra import worker

def run(cfg, out, *, resume):
    import torch
    from huggingface_hub import get_token
    from transformers.utils import logging as libraries
    for level in ("debug", "info", "warning"):
        getattr(logging.getLogger("llmf_hydra.some"), level)("said " + level)
    seen = {"threads": torch.get_num_threads(), "devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
            "token": get_token(),
            "asked": os.environ.get("OMP_NUM_THREADS"), "libraries": libraries.get_verbosity()}
    (out / "seen.json").write_text(json.dumps(seen))

sys.modules["llmf_hydra.jobs.check"] = types.SimpleNamespace(run=run)
sys.exit(worker.main(Path(sys.argv[1]), resume=False))
"""
CHOSEN = {
    "launch.omp_num_threads": 1,
    "launch.omp_wait_policy": "ACTIVE",
    "launch.cuda_visible_devices": "1,0",
    "launch.verbosity": "DEBUG",
    "model.hf_hub_token": "hf_secret",
}
UNSET = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "CUDA_VISIBLE_DEVICES", "HF_TOKEN",
         "TRANSFORMERS_VERBOSITY")  # fmt: skip
SHORT = "import sys; sys.argv[0] = 'llmf'; from llmf_hydra.__main__ import short; sys.exit(short())"


def seen(out: Path, rows: Path, changes: Changes) -> dict[str, Any]:
    """What a worker with the config's environment sees, and what it says."""
    cfg = config(rows, {"job.name": "check", **changes})
    runs.create(out, record.dump(cfg), first_manifest(cfg, [], None))
    env = {**process.environment(cfg), "OMP_DISPLAY_ENV": "VERBOSE", "HF_HOME": str(out)}
    command = [sys.executable, "-c", WORKER, str(out)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    return {**json.loads((out / "seen.json").read_text()), "said": done.stdout + done.stderr}


@parameter(*CHOSEN)
def test_a_worker_sees_what_the_config_says(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in UNSET:
        monkeypatch.delenv(name, raising=False)
    plain, chosen = seen(tmp_path / "plain", rows, {}), seen(tmp_path / "chosen", rows, CHOSEN)
    assert (plain["devices"], plain["token"]) == (None, None)
    assert (chosen["devices"], chosen["token"], chosen["threads"]) == ("1,0", "hf_secret", 1)
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in plain["said"] and plain["asked"] is None
    assert "GOMP_SPINCOUNT = '1000'" in plain["said"] and "GOMP_SPINCOUNT = '1000'" not in chosen["said"]
    assert "OMP_WAIT_POLICY = 'ACTIVE'" in chosen["said"] and "OMP_NUM_THREADS = '1'" in chosen["said"]
    assert "said info" in plain["said"] and "said debug" not in plain["said"]
    assert "said debug" in chosen["said"]
    assert plain["libraries"] > chosen["libraries"], "the libraries say more at DEBUG"
    for file in (tmp_path / "chosen").iterdir():
        assert not file.is_file() or file.name == "seen.json" or "hf_secret" not in file.read_text()


@parameter("launch.verbosity")
def test_a_worker_that_warns_only(rows: Path, tmp_path: Path) -> None:
    said = seen(tmp_path / "run", rows, {"launch.verbosity": "WARN"})["said"]
    assert "said warning" in said and "said info" not in said


@parameter("launch.allow_extra_args")
def test_a_value_without_effect_is_refused_or_let_pass(rows: Path) -> None:
    idle = {"rlhf.pref_beta": 0.3}
    assert [problem.key for problem in refusals.problems(config(rows, idle), {}, [refusals.CONFIG])] == [
        "rlhf.pref_beta"
    ]
    assert (
        refusals.problems(config(rows, {**idle, "launch.allow_extra_args": True}), {}, [refusals.CONFIG])
        == []
    )


@parameter("launch.disable_version_check")
def test_another_version_is_refused_or_let_pass(rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "0.1")
    assert [problem.key for problem in refusals.problems(config(rows, {}), {})] == ["trl"]
    assert refusals.problems(config(rows, {"launch.disable_version_check": True}), {}) == []


@parameter("launch.enable_short_console")
@pytest.mark.parametrize("allowed", [True, False])
def test_the_short_command_can_be_taken_away(
    allowed: bool, environment: dict[str, str], tmp_path: Path
) -> None:
    words = ["stage=sft", "model=tiny", "data.dataset=absent", f"launch.enable_short_console={allowed}"]
    done = subprocess.run(
        [sys.executable, "-c", SHORT, *words],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and "data.dataset=absent" in done.stderr
    assert ("the short command is off" in done.stderr) != allowed
