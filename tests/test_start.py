"""Torch stays out of the answers that start nothing, and they come quickly: `make bench` measures how quickly."""

import sys
from pathlib import Path

import pytest

from benchmarks.start import ANSWERS, taken_by

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
