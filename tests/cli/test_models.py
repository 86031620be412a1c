"""`llmf models` lists the choices of `model=`, each of which composes and names a template that there is."""

import json
from pathlib import Path

import pytest
from support.stage_runs import composed

from llmf_hydra.cli.models import main, presets
from llmf_hydra.config.conf_files import choices
from llmf_hydra.data.chat.index import template_names

HUB = [one for one in presets() if one.name is not None and not one.name.startswith("builtin:")]


def test_each_choice_is_listed_with_name_size_and_template(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(choices("model"))
    (line,) = (line for line in lines if line.startswith("model=qwen3_8b "))
    assert line.split() == ["model=qwen3_8b", "8.2B", "qwen3", "Qwen/Qwen3-8B"]
    assert main(["--json"]) == 0
    found = {one["choice"]: one for one in json.loads(capsys.readouterr().out)}
    assert set(found) == set(choices("model"))
    assert found["tiny"] == {"choice": "tiny", "name": "builtin:tiny", "size": "0.1M", "template": None}
    assert found["path"]["name"] is None


def test_each_preset_composes_and_its_template_exists() -> None:
    assert len(HUB) > 20
    for one in HUB:
        assert one.size is not None and one.name is not None and one.name.count("/") == 1, one
        assert one.template is None or one.template in template_names()
    for one in HUB[::9]:
        cfg = composed(f"model={one.choice}", model=None)
        assert (cfg.model.model_name_or_path, cfg.data.template) == (one.name, one.template)
        assert composed(f"model={one.choice}", "data.template=chatml", model=None).data.template == "chatml"


def test_a_preset_of_the_users_own_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/mine.yaml").write_text("model_name_or_path: ./mine # 3B\n")
    monkeypatch.setenv("LLMF_CONF", str(tmp_path))
    assert main([]) == 0
    assert "model=mine" in capsys.readouterr().out
