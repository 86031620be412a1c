"""What the changes of a network meet in each stage: how it reads logits, its reference, the layout of its batches."""

import pytest
from support.stage_runs import SGD, Build

CHANGED = [
    "model.compute_dtype=bfloat16",
    "model.upcast_layernorm=true",
    "data.cutoff_len=4096",
    "model.rope_scaling=yarn",
]
HEAD = "model.upcast_lmhead_output=true"


def logged(build: Build, *words: str) -> dict[str, float]:
    trainer = build(*SGD, *words, "training.max_steps=1", "training.per_device_train_batch_size=2")
    trainer.train()
    return trainer.state.log_history[0]


@pytest.mark.parametrize("method", ["method=lora", "method=full"])
@pytest.mark.parametrize("stage", ["dpo", "kto"])
def test_a_reference_is_changed_as_the_policy_is(stage: str, method: str, build: Build) -> None:
    """Before the first step both are the same model."""
    pure = ["training.pure_bf16=true", "model.compute_dtype=null"] if method == "method=full" else []
    first = logged(build, f"stage={stage}", method, *CHANGED, HEAD, *pure)
    rewards = [first[name] for name in ("rewards/chosen", "rewards/rejected")]
    assert rewards == pytest.approx([0, 0], abs=2e-3)


def test_scores_and_rollouts_come_of_a_changed_network(build: Build) -> None:
    plain, changed = (logged(build, "stage=rm", *words) for words in ([], CHANGED))
    assert plain["loss"] != changed["loss"] == pytest.approx(plain["loss"], abs=0.2)
    shifted = logged(build, "stage=rm", "model.shift_attn=true")
    assert shifted["loss"] != pytest.approx(plain["loss"], abs=1e-6)
    simpo = ["stage=dpo", "rlhf=simpo"]
    losses = [
        logged(build, *simpo, *words)["loss"] for words in ([], ["model.shift_attn=true"], [*CHANGED, HEAD])
    ]
    assert len(set(losses)) == 3
