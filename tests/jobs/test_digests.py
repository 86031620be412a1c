"""Digests of weights are remembered by size and time of change, and hashed anew where a file has changed."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from support.command_line import Cli, only_run
from support.stage_runs import composed

from llmf_hydra.jobs import digests
from llmf_hydra.runs import file_digests


def test_an_unchanged_file_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMF_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "model"
    folder.mkdir()
    save_file({"weight": torch.ones(3)}, folder / "model.safetensors")
    cfg = composed("stage=sft", f"model.model_name_or_path={folder}", model=None)
    hashed: list[Path] = []
    original = file_digests.digest_of_file
    monkeypatch.setattr(file_digests, "digest_of_file", lambda file: hashed.append(file) or original(file))
    first, again = digests.digests_of_weights(cfg), digests.digests_of_weights(cfg)
    assert first == again and first["model"] and len(hashed) == 1
    save_file({"weight": torch.zeros(3)}, folder / "model.safetensors")
    os.utime(folder / "model.safetensors", ns=(1, 1))
    assert digests.digests_of_weights(cfg)["model"] != first["model"] and len(hashed) == 2
    next((tmp_path / "cache" / "digests").glob("*.json")).write_text("{")
    assert digests.digests_of_weights(cfg)["model"] and len(hashed) == 3


def test_a_run_that_fails_has_its_digests_too(cli: Cli, tmp_path: Path) -> None:
    done = cli("stage=sft", "model=tiny", "method=full", "training.learning_rate=1e25", "training.max_steps=2",
               "training.warmup_ratio=0", "training.eval_strategy=no", "data.val_size=0")  # fmt: skip
    assert done.returncode == 1
    manifest = json.loads((only_run(tmp_path, "sft") / "manifest.json").read_text(encoding="utf8"))
    assert set(manifest["digests"]) == {"data", "tokenizer", "template", "model"}
    assert all(manifest["digests"].values())
