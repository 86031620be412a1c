"""Each stage learns: SmolLM2-135M on the demo data from the real command line, a few minutes each on two cores.

Marked slow; `make slow ARGS=tests/test_quality.py` runs them one after another if JOBS=1.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from support.command_line import Cli

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def log_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf8").splitlines()]


@pytest.fixture
def held_out(cli: Cli, tmp_path: Path) -> Any:
    """`held_out("stage=sft")` trains, and gives the metrics of the last evaluation."""

    def trained(*words: str) -> dict[str, Any]:
        out = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        done = cli(*words, f"hydra.run.dir={out.name}", timeout=3000)
        assert done.returncode == 0, done.stderr
        return [line for line in log_of(out) if "eval_loss" in line][-1]

    return trained


def test_sft_takes_a_third_off_the_loss(held_out: Any) -> None:
    untrained = held_out(
        "stage=sft", "training.max_steps=1", "training.eval_steps=1", "training.learning_rate=1e-9"
    )
    assert held_out("stage=sft")["eval_loss"] <= untrained["eval_loss"] * 2 / 3


def test_dpo_tells_right_from_wrong(held_out: Any) -> None:
    found = held_out("stage=dpo")
    assert found["eval_rewards/accuracies"] >= 0.9 and found["eval_rewards/margins"] > 0.5


def test_a_reward_model_tells_right_from_wrong(held_out: Any) -> None:
    assert held_out("stage=rm")["eval_accuracy"] >= 0.9


def test_kto_tells_good_from_bad(held_out: Any) -> None:
    assert held_out("stage=kto")["eval_rewards/margins"] > 0.5
