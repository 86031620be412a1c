"""What a run needs beside a sound config is looked up before torch is imported."""

import importlib.util
from pathlib import Path

import pytest

from llmf_hydra import requirements
from llmf_hydra.config.schema import Config


def said(cfg: Config) -> list[str]:
    return [str(problem) for problem in requirements._reference(cfg)]


def test_a_quantized_reference_needs_bitsandbytes_only_when_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    cfg = Config()
    assert said(cfg) == []
    cfg.rlhf.ref_model_quantization_bit = 8
    (problem,) = said(cfg)
    assert "needs the package bitsandbytes" in problem and "llmf_hydra[bnb]" in problem
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    assert said(cfg) == []


def test_folders_of_the_reference_are_looked_into(tmp_path: Path) -> None:
    cfg = Config()
    cfg.rlhf.ref_model, cfg.rlhf.ref_model_adapters = str(tmp_path), f"{tmp_path},./none"
    without_config, without_adapter, missing = said(cfg)
    assert "holds no config.json" in without_config and "holds no adapter_config.json" in without_adapter
    assert "rlhf.ref_model_adapters=./none: there is no such folder" in missing
    (tmp_path / "config.json").touch()
    (tmp_path / "adapter_config.json").touch()
    cfg.rlhf.ref_model_adapters = str(tmp_path)
    assert said(cfg) == []


def test_images_are_refused_before_a_model_that_cannot_see_them_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"instruction": "<image>hello", "output": "good", "images": ["a.png"]}\n')
    columns = {"prompt": "instruction", "response": "output", "images": "images"}
    cfg = Config()
    cfg.data.dataset, cfg.data.media_dir = "seen", str(tmp_path)
    cfg.data.dataset_dir = {"seen": {"file_name": str(rows), "columns": columns}}
    (problem,) = map(str, requirements._media(cfg))
    assert problem.startswith("data.dataset=seen: has images, and only text is trained on")
    del columns["images"]
    assert list(requirements._media(cfg)) == []
    columns["images"] = "images"
    cfg.job.name = "preview"
    assert list(requirements._media(cfg)) == []
