"""Tensors read without torch are those that torch wrote, and their differences are exact."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from llmf_hydra.comparison import tensors as ours
from llmf_hydra.comparison.outcome import compare_weights

TYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
         torch.int8, torch.uint8, torch.bool)  # fmt: skip


def test_every_type_is_read_as_torch_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ours, "PIECE", 4)  # several pieces each
    written = {str(dtype): (torch.randn(3, 5) * 50).to(dtype) for dtype in TYPES}
    save_file({**written, "empty": torch.zeros(0, 3)}, tmp_path / "some.safetensors", {"format": "pt"})
    read = ours.tensors(tmp_path / "some.safetensors")
    assert set(read) == {*written, "empty"} and list(read["empty"].pieces()) == []
    for name, tensor in written.items():
        assert np.array_equal(np.concatenate(list(read[name].pieces())), tensor.double().numpy().ravel()), (
            name
        )


@pytest.mark.parametrize(
    ("one", "other", "apart"),
    [
        ([1.0, 2.0], [1.0, 2.5], 0.5),
        ([1.0, math.nan], [1.0, math.nan], 0.0),
        ([1.0, math.nan], [1.0, 2.0], math.inf),
        ([math.inf], [math.inf], 0.0),
        ([math.inf], [1.0], math.inf),
        ([1.0], [1.0, 1.0], math.inf),
    ],
)
def test_the_largest_difference(tmp_path: Path, one: list[float], other: list[float], apart: float) -> None:
    for name, values in (("one", one), ("other", other)):
        (tmp_path / name / "final").mkdir(parents=True)
        save_file(
            {"w": torch.tensor(values), "same": torch.ones(2)}, tmp_path / name / "final" / "a.safetensors"
        )
    found = compare_weights(tmp_path / "one", tmp_path / "other")
    assert found.tensors == ({"w": apart} if apart else {})
    assert found.identical is (one == other or apart == 0.0) and found.files == 1


def test_no_weights_at_all_are_not_identical(tmp_path: Path) -> None:
    assert not compare_weights(tmp_path, tmp_path).identical
