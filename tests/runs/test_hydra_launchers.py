"""Hydra's own launchers, where their packages are installed: each trial a run as any other."""

import importlib.util
import json
from pathlib import Path

import pytest
from support.command_line import Cli

SWEEP = ["-m", "job=check", "stage=sft", "model=tiny", "hydra.sweep.dir=study"]
TOKEN = "hf_ToKenSeCret01"


@pytest.fixture(params=["joblib", "submitit_local"])
def launcher(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def installed(launcher: str) -> dict[str, str]:
    """The environment in which the launcher's package is found; skips where it isn't installed."""
    package = f"hydra-{launcher.partition('_')[0]}-launcher"
    plugins = importlib.util.find_spec("hydra_plugins")
    folders = [Path(folder) for folder in (plugins.submodule_search_locations or [])] if plugins else []
    found = [folder for folder in folders if (folder / package.replace("-", "_")).is_dir()]
    if not found:
        pytest.skip(f"pip install {package}")
    return {"PYTHONPATH": str(found[0].parent)}


def test_the_trials_of_a_launcher_are_runs(
    launcher: str, installed: dict[str, str], cli: Cli, tmp_path: Path
) -> None:
    done = cli(*SWEEP, f"hydra/launcher={launcher}", "method.lora_rank=4,8", env=installed)
    assert done.returncode == 0, done.stderr
    for trial in ("0", "1"):
        manifest = json.loads((tmp_path / "study" / trial / "manifest.json").read_text())
        assert manifest["status"] == "done" and manifest["sweep"]["trial"] == int(trial)
    assert [line.split()[1] for line in done.stdout.splitlines() if line[:1] in "01"] == ["done", "done"]


def test_no_launcher_writes_a_secret_to_disk(
    launcher: str, installed: dict[str, str], cli: Cli, tmp_path: Path
) -> None:
    words = [*SWEEP, f"hydra/launcher={launcher}"]
    done = cli(*words, f"model.hf_hub_token={TOKEN}", env=installed)
    if launcher == "joblib":
        assert done.returncode == 0, done.stderr
    else:
        assert done.returncode == 2 and TOKEN not in done.stderr
        assert "model.hf_hub_token=***: hydra/launcher=submitit_local would write this secret" in done.stderr
        assert not (tmp_path / "study").exists()
        given = cli(*words, env={**installed, "HF_TOKEN": TOKEN})
        assert given.returncode == 0, given.stderr
    files = [file for file in (tmp_path / "study").rglob("*") if file.is_file()]
    assert [file for file in files if TOKEN.encode() in file.read_bytes()] == []
