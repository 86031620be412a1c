"""Two names are of one model if what lies there is the same."""

import os
import shutil
from pathlib import Path

import pytest

from llmf_hydra.models.identity import SAMPLE, same_model


def saved(folder: Path, weights: bytes) -> str:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "model.safetensors").write_bytes(weights)
    return str(folder)


def test_folders_are_compared_by_their_weights(tmp_path: Path) -> None:
    weights = os.urandom(5 * SAMPLE)
    first = saved(tmp_path / "x" / "run1" / "final", weights)
    other = saved(tmp_path / "y" / "run2" / "final", weights[: 2 * SAMPLE] + os.urandom(3 * SAMPLE))
    shorter = saved(tmp_path / "z" / "final", weights[:-1])
    assert not same_model(first, other) and not same_model(first, shorter)
    moved = tmp_path / "moved-and-renamed"
    shutil.copytree(first, moved)
    assert same_model(first, str(moved))
    shutil.rmtree(first)
    assert not same_model(first, str(moved)), "a folder that is gone can't be compared"


@pytest.mark.parametrize(
    ("base", "model", "same"),
    [
        ("org/name", "org/name", True),
        ("org/name", "/models/name", True),
        ("org/name", "org/other", False),
        ("org/name", "another/name", False),
        ("/x/run1/final", "/y/run2/final", False),
        ("/home/u/.cache/llmf/models/tiny-v1-96b677078357", "builtin:tiny", True),
        ("/home/u/.cache/llmf/models/tiny-v1-96b677078357", "builtin:smollm2", False),
        ("builtin:smollm2", "builtin:tiny", False),
    ],
)
def test_names_alone(base: str, model: str, same: bool) -> None:
    assert same_model(base, model) is same
