"""A quantized reference is another reference: its log-probabilities, and so the first loss, differ with the bits."""

import json
from pathlib import Path

import pytest
from support.command_line import Cli

pytest.importorskip("bitsandbytes", reason="needs bitsandbytes: pip install 'llmf_hydra[bnb]'")


@pytest.mark.slow
@pytest.mark.parametrize("bits", [4, 8])
def test_the_first_loss_differs_with_the_bits_of_the_reference(bits: int, cli: Cli, tmp_path: Path) -> None:
    words = ["stage=dpo", "model=tiny", "training.max_steps=1", "training.logging_steps=1"]
    words += [
        "training.eval_strategy=no",
        "data.val_size=0",
        "training.save_strategy=no",
        "rlhf.ref_model=builtin:tiny",
    ]
    first = {}
    for name, more in {"plain": [], "quantized": [f"rlhf.ref_model_quantization_bit={bits}"]}.items():
        done = cli(*words, *more, f"hydra.run.dir={name}")
        assert done.returncode == 0, done.stderr
        first[name] = json.loads((tmp_path / name / "log.jsonl").read_text(encoding="utf8").splitlines()[0])[
            "loss"
        ]
    assert first["plain"] == pytest.approx(0.6931472, abs=1e-6)  # policy and reference are the same model
    assert abs(first["quantized"] - first["plain"]) > 1e-5
