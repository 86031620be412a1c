"""Trainers of the tiny model in this process: what the command line would build, without its 15 seconds."""

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from support.stage_runs import Build, composed


@pytest.fixture
def build(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Build:
    """`build("stage=dpo", "training.max_steps=2")` gives the trainer of a config, in an empty run folder."""
    monkeypatch.setenv("LLMF_CACHE", str(cache))
    monkeypatch.chdir(tmp_path)
    runs = iter(range(1000))

    def built(*words: str) -> Any:
        from llmf_hydra.jobs import assemble

        cfg = composed(*words)
        out = tmp_path / f"run{next(runs)}"
        out.mkdir()
        inputs = assemble.load_inputs(cfg)
        model = assemble.load_policy(cfg, inputs.precision, inputs.tokenizer)
        context = assemble.run_context(cfg, inputs, model, [], out)
        return import_module(f"llmf_hydra.stages.{cfg.stage.name}").build_trainer(context)

    return built


@pytest.fixture
def first(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A saved adapter of the tiny model."""
    from support.adapter_runs import save

    from llmf_hydra.models.builtin import tiny

    monkeypatch.setenv("LLMF_CACHE", str(cache))
    return save(tmp_path / "first", tiny.ready(), 1)
