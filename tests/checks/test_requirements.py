"""What a run needs beside a sound config is looked up before torch is imported."""

import importlib.util
import json
from pathlib import Path

import pytest

from llmf_hydra.config.schema import Config
from llmf_hydra.data import checks as dataset_files
from llmf_hydra.models import checks as model_files


def said(cfg: Config) -> list[str]:
    return [str(problem) for problem in (*model_files.the_adapters_fit(cfg), *model_files.the_reference_is_there(cfg),
                                        *model_files.the_reference_can_be_quantized(cfg))]  # fmt: skip


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
    (tmp_path / "adapter_config.json").write_text("{}")
    cfg.rlhf.ref_model_adapters = str(tmp_path)
    assert said(cfg) == []


def saved(folder: Path, **fields: str) -> str:
    """A folder with the config of an adapter."""
    known = {"base_model_name_or_path": "org/llama", "peft_type": "LORA", "task_type": "CAUSAL_LM"}
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(known | fields))
    return str(folder)


def test_adapters_to_go_on_from_must_fit_the_run(tmp_path: Path) -> None:
    cfg = Config()
    cfg.model.model_name_or_path = "org/llama"
    good = saved(tmp_path / "good")
    other = saved(tmp_path / "other", base_model_name_or_path="org/other")
    kind = saved(tmp_path / "kind", peft_type="IA3")
    scores = saved(tmp_path / "scores", task_type="SEQ_CLS")
    cfg.model.adapter_name_or_path = f"{good}, ./none,{other},{kind},{scores},org/on-a-hub"
    missing, base, type_, text = said(cfg)
    assert "model.adapter_name_or_path=./none: there is no such folder" in missing
    assert "is an adapter of org/other, and model.model_name_or_path=org/llama is another model" in base
    assert "of the type IA3" in type_ and "for scores (SEQ_CLS)" in text
    cfg.stage.name, cfg.model.adapter_name_or_path = "rm", f"{good},{scores}"
    assert said(cfg) == []
    (Path(good) / "adapter_model.safetensors").write_bytes(b"half")
    (cut_off,) = said(cfg)
    assert f"model.adapter_name_or_path={good}: its adapter_model.safetensors is cut off" in cut_off


def test_images_are_refused_before_a_model_that_cannot_see_them_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"instruction": "<image>hello", "output": "good", "images": ["a.png"]}\n')
    columns = {"prompt": "instruction", "response": "output", "images": "images"}
    cfg = Config()
    cfg.data.dataset, cfg.data.media_dir = "seen", str(tmp_path)
    cfg.data.dataset_dir = {"seen": {"file_name": str(rows), "columns": columns}}
    (problem,) = map(str, dataset_files.only_text_is_trained_on(cfg))
    assert problem.startswith("data.dataset=seen: has images, and only text is trained on")
    del columns["images"]
    assert list(dataset_files.only_text_is_trained_on(cfg)) == []
