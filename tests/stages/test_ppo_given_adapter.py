"""PPO that goes on from a saved adapter."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.adapter_runs import logits, merged
from support.ppo_runs import served
from support.stage_runs import SGD, Build

from llmf_hydra.training.reference.model import as_reference


def test_the_kl_of_ppo_is_counted_from_there(build: Build, first: Path) -> None:
    def pay(body: dict[str, Any]) -> tuple[int, Any]:
        return 200, {"scores": [float(len(sample["response"])) for sample in body["samples"]]}

    with served(pay) as service:
        trainer = build("stage=ppo", *SGD, f"model.adapter_name_or_path={first}", "rlhf.reward_model_type=api",
                        f"rlhf.reward_model={service.url}", "generation.max_new_tokens=4", "rlhf.ppo_epochs=1",
                        "training.learning_rate=10")  # fmt: skip
        trainer.train()
    divergences = [line["objective/kl"] for line in trainer.state.log_history if "objective/kl" in line]
    assert divergences[0] == pytest.approx(0, abs=1e-4) and abs(divergences[1]) > 1e-3
    policy = trainer.model.policy
    with as_reference(policy):
        torch.testing.assert_close(logits(policy), logits(merged(first)), atol=1e-4, rtol=1e-4)
