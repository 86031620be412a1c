"""Torch stays out of the answers that start nothing, and they come quickly: `make bench` measures how quickly.

And a worker imports what its run uses: what a whole run of `stage=sft` has in memory at its end.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.start import ANSWERS, taken_by
from llmf_hydra.runs import warm

HEAVY = ["torch", "transformers", "peft", "trl", "datasets", "wandb", "mlflow"]
PROBE = f"""
import sys
from llmf_hydra.__main__ import main
code = main(sys.argv[1:])
print("heavy:", [name for name in {HEAVY!r} if name in sys.modules])
sys.exit(code)
"""
LOADED = (
    3  # times as long as `make bench` allows: a machine that others use fails nothing, a heavy import does
)


@pytest.mark.parametrize(
    ("words", "code", "allowed"), ANSWERS, ids=[" ".join(words) for words, _, _ in ANSWERS]
)
def test_an_answer_comes_quickly_and_without_torch(
    words: list[str], code: int, allowed: float, environment: dict[str, str], tmp_path: Path
) -> None:
    seconds, done = taken_by([sys.executable, "-c", PROBE, *words], cwd=tmp_path, env=environment)
    assert done.returncode == code, done.stderr
    assert "heavy: []" in done.stdout
    assert seconds <= LOADED * allowed


# Installed here, and used by no sft run that keeps files and draws nothing.
UNUSED = {"aiohttp", "bitsandbytes", "deepspeed", "fastapi", "gguf", "gradio", "hqq", "hydra", "matplotlib", "mlflow",
          "optuna", "plotly", "ray", "requests", "rich", "scipy", "sklearn", "sqlalchemy", "submitit", "tensorboard",
          "torchvision", "trl", "uvicorn", "wandb"}  # fmt: skip
AT_EXIT = """
import atexit, gc, pathlib, sys

def told():
    names = [name for name, module in sys.modules.items() if module is not None]
    frozen = f"{gc.isenabled()} {gc.get_freeze_count()}"
    pathlib.Path("modules.txt").write_text("\\n".join([frozen, *names]))

if "-m" in sys.orig_argv and "llmf_hydra.worker" in sys.orig_argv:
    atexit.register(told)
"""


def test_a_worker_imports_what_its_run_uses(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "told").mkdir()
    (tmp_path / "told" / "sitecustomize.py").write_text(AT_EXIT, encoding="utf8")
    env = {name: value for name, value in environment.items() if name != warm.WORKERS}
    words = ["stage=sft", "model=tiny", "training.max_steps=1", "training.plot_loss=false", "tracking=files"]
    done = subprocess.run([sys.executable, "-m", "llmf_hydra", *words], cwd=tmp_path, capture_output=True, text=True,
                          check=False, env={**env, "PYTHONPATH": str(tmp_path / "told")})  # fmt: skip
    assert done.returncode == 0, done.stderr
    collects, *modules = (tmp_path / "modules.txt").read_text(encoding="utf8").splitlines()
    imported = {name.partition(".")[0] for name in modules}
    assert {"torch", "transformers", "peft", "datasets"} <= imported
    assert imported & UNUSED == set()
    # Nothing was collected while they were imported, and what they made is not looked at again.
    enabled, frozen = collects.split()
    assert enabled == "True" and int(frozen) > 500_000
