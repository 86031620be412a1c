"""A quantized reward model gives other scores."""

from pathlib import Path

import pytest
from support.ppo_runs import SHORT, save_full
from support.stage_runs import Build

pytest.importorskip("bitsandbytes", reason="needs bitsandbytes: pip install 'llmf_hydra[bnb]'")


def test_scores_differ_with_the_bits_of_the_reward_model(build: Build, tmp_path: Path) -> None:
    save_full(tmp_path / "model")
    own = ["rlhf.reward_model_type=full", f"rlhf.reward_model={tmp_path / 'model'}", "training.max_steps=1"]
    scores = {}
    for bits in (None, 8, 4):
        asked = [f"rlhf.reward_model_quantization_bit={bits}"] if bits else []
        trainer = build("stage=ppo", *SHORT, *own, *asked)
        trainer.train()
        scores[bits] = next(
            line["objective/scores"] for line in trainer.state.log_history if "objective/scores" in line
        )
    assert len({round(score, 5) for score in scores.values()}) == 3
    assert scores[8] == pytest.approx(scores[None], abs=0.1)  # eight bits are near, four are farther
