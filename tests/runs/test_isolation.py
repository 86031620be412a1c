"""Nothing of the working directory runs inside ours: not in the launcher, the worker or a tracker's process."""

from pathlib import Path

import pytest
from support.command_line import Cli

HOSTILE = "import pathlib; pathlib.Path(__file__ + '.ran').touch(); raise SystemExit('hijacked')\n"
# Modules that Python, Hydra, the worker and the trackers import; each stands for a file that a user may well have.
NAMES = ("grp", "tarfile", "statistics", "torch", "yaml", "mlflow", "sqlite3", "queue", "pickle", "secrets")


@pytest.mark.parametrize("cold", [True, False], ids=["cold", "warm"])
def test_a_users_modules_stay_out(cold: bool, cli: Cli, tmp_path: Path) -> None:
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text(HOSTILE)
    done = cli("stage=sft", "model=tiny", "training.max_steps=1", "training.eval_strategy=no", "data.val_size=0",
               "data.max_samples=8", "training.save_strategy=no", "training.plot_loss=false",
               f"tracking={'mlflow' if cold else 'files'}", "hydra.run.dir=run", cold=cold)  # fmt: skip
    assert done.returncode == 0 and "hijacked" not in done.stdout + done.stderr, done.stderr
    assert "left out" not in done.stderr, "the tracker, a process of its own, ran"
    assert [file.name for file in tmp_path.glob("*.ran")] == []
