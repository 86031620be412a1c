"""`training.deterministic`: torch is asked for it, and an operation without it is named."""

import json
from pathlib import Path

import pytest
import torch
from support.parameter_runs import Work, config, parameter

from llmf_hydra.errors import TrainingFailed
from llmf_hydra.runs import processes
from llmf_hydra.training.determinism import deterministic


@parameter("training.deterministic")
def test_the_manifest_says_whether_it_was_asked_for(worked: Work) -> None:
    asked = {}
    for value in (True, False):
        out = worked(f"run-{value}", {"training.deterministic": value})
        manifest = json.loads((out / "manifest.json").read_text(encoding="utf8"))
        asked[value] = manifest["machine"]["deterministic"]
    assert asked == {True: True, False: False}
    assert not torch.are_deterministic_algorithms_enabled()


def test_cublas_is_told_before_the_worker_starts(rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    plain, chosen = ({"training.deterministic": value} for value in (False, True))
    assert "CUBLAS_WORKSPACE_CONFIG" not in processes.environment(config(rows, plain))
    assert processes.environment(config(rows, chosen))["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")  # the other value that cuBLAS allows
    assert processes.environment(config(rows, chosen))["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


def test_an_operation_without_a_deterministic_implementation_is_named() -> None:
    def put() -> None:
        torch.zeros(3).put_(torch.tensor([0, 1]), torch.ones(2))

    said = "training.deterministic=true: put_ has no deterministic"
    with pytest.raises(TrainingFailed, match=said), deterministic(True):
        put()
    assert not torch.are_deterministic_algorithms_enabled()
    with deterministic(False):
        put()
    with pytest.raises(RuntimeError, match="out of memory"), deterministic(True):
        raise RuntimeError("out of memory")
