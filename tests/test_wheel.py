"""The wheel, installed elsewhere, runs from any folder, with a user's own conf folder before the shipped one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.command_line import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel installed in it, apart from the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(folder / "dist"),
        str(ROOT),
    ]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = (folder / "dist").glob("*.whl")
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--no-deps",
        "--target",
        str(folder / "site"),
        str(wheel),
    ]
    subprocess.run(install, check=True, capture_output=True)
    return folder / "site"


def test_the_wheel_trains_with_a_choice_of_the_user(
    site: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "conf" / "method").mkdir(parents=True)
    (tmp_path / "conf" / "method" / "lora.yaml").write_text("name: lora\nlora_rank: 3\n")
    (tmp_path / "elsewhere").mkdir()
    env = {**environment, "PYTHONPATH": str(site), "LLMF_CONF": str(tmp_path / "conf")}
    words = ["stage=sft", "model=tiny", "training.max_steps=2", "training.eval_strategy=no", "data.val_size=0",
             "hydra.run.dir=run"]  # fmt: skip
    done = subprocess.run([str(site / "bin" / "llmf-hydra"), *words], cwd=tmp_path / "elsewhere", env=env, check=False,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    adapter = json.loads(
        (tmp_path / "elsewhere" / "run" / "final" / "adapter_config.json").read_text(encoding="utf8")
    )
    assert adapter["r"] == 3 and adapter["lora_alpha"] == 6

    where = subprocess.run([sys.executable, "-c", "import llmf_hydra.paths as p; print(p.conf_dir(), p.data_dir())"],
                           cwd=tmp_path, env=env, check=True, capture_output=True, text=True).stdout  # fmt: skip
    assert where.split() == [str(site / "llmf_hydra" / "_shipped" / name) for name in ("conf", "data")]


def test_the_wheel_holds_what_a_user_needs_and_no_more(site: Path) -> None:
    shipped = site / "llmf_hydra" / "_shipped"
    assert (shipped / "conf" / "config.yaml").exists() and (shipped / "sweeps" / "lora_rank.yaml").exists()
    assert (shipped / "data" / "dataset_info.json").exists()
    assert not list(shipped.rglob("*.py"))
    assert not (site / "tests").exists() and not (site / "benchmarks").exists()
    assert os.access(site / "bin" / "llmf", os.X_OK)
