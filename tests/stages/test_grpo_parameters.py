"""Each parameter of stage=grpo changes what is trained or what is measured; a resumed run goes on as it was."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.grpo_runs import SHORT, grouped, sums, table

from llmf_hydra.errors import Refused

Build = Callable[..., Any]
CLOCK = ("runtime", "per_second")
# Two passes over each answer, at a rate that takes the policy away from what answered.
TWICE = ["rlhf.num_iterations=2", "training.learning_rate=0.1"]
CHANGES: dict[str, list[list[str]]] = {  # what the others are compared with -> the changes
    "": [["rlhf.num_generations=2"], ["rlhf.steps_per_generation=2"], ["rlhf.num_iterations=2"], ["rlhf.beta=0.5"],
         ["rlhf.scale_rewards=none"], ["rlhf.scale_rewards=batch"], ["rlhf.mask_truncated_completions=true"],
         ["rlhf.top_entropy_quantile=0.3"], ["rlhf.entropy_coef=0.5"],
         ["generation.temperature=0.7"], ["generation.top_k=20"], ["training.seed=7"]],
    "rlhf.num_iterations=2": [["rlhf.epsilon=0.001"], ["rlhf.epsilon_high=0.001"], ["rlhf.delta=1.0001"],
                              ["rlhf.importance_sampling_level=sequence"], ["rlhf.loss_type=rloo"]],
    "rlhf.beta=2 rlhf.num_iterations=2": [["rlhf.use_bias_correction_kl=false"]],
    "rlhf.rewards=[python:letters:share,python:letters:spaces]": [
        ["rlhf.multi_objective_aggregation=normalize_then_sum"],
        ["rlhf.rewards=[python:letters:share,{kind: python, function: letters:spaces, weight: 3}]"]],
    "rlhf.loss_type=rloo": [["rlhf.normalize_advantages=true"], ["rlhf.beta=0.5", "rlhf.num_iterations=2"]],
}  # fmt: skip


@pytest.fixture(autouse=True)
def rows(tmp_path: Path, build: Build) -> None:
    sums(tmp_path)


def trained(build: Build, *words: str, resume: str | None = None) -> Any:
    trainer = build(*SHORT, *words)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def weights(trainer: Any) -> torch.Tensor:
    """All trained weights as one vector."""
    return torch.cat([w.detach().flatten() for w in trainer.model.parameters() if w.requires_grad])


def log_of(trainer: Any) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in line.items() if not any(word in key for word in CLOCK)}
        for line in trainer.state.log_history
    ]


@pytest.mark.parametrize("base", CHANGES)
def test_each_parameter_changes_the_weights(base: str, build: Build) -> None:
    words = [*base.split(), "training.learning_rate=0.1"]
    plain = weights(trained(build, *words))
    if not base:
        assert torch.equal(weights(trained(build, *words)), plain)
    same = [
        change for change in CHANGES[base] if torch.equal(weights(trained(build, *words, *change)), plain)
    ]
    assert same == []


def test_an_evaluation_answers_held_out_prompts(build: Build) -> None:
    """Its rewards are exact, its answers the same each time, and the training doesn't notice it."""
    held = ["training.eval_strategy=steps", "training.eval_steps=1", "data.val_size=6", "rlhf.pass_reward=0.3",
            "rlhf.num_generations_eval=2", "training.per_device_eval_batch_size=4",
            "training.learning_rate=1e-12"]  # fmt: skip
    seen = trained(build, *held)
    lines = [line for line in log_of(seen) if "eval_reward" in line]
    scored = [{k: line[k] for k in line if k.startswith("eval_") and "num_tokens" not in k} for line in lines]
    assert len(lines) == 2 and scored[0] == scored[1]
    assert 0 < scored[0]["eval_pass_at_1"] <= scored[0]["eval_pass_at_k"] <= 1
    assert scored[0]["eval_rewards/share/mean"] == pytest.approx(scored[0]["eval_reward"], abs=0.05)
    strict = trained(build, *held, "rlhf.pass_reward=0.9")
    assert strict.state.log_history[1]["eval_pass_at_k"] == 0
    blind = trained(build, "data.val_size=0", "training.learning_rate=1e-12", "data.max_samples=18")
    assert len(table(blind.context.out)) == len(table(seen.context.out)) == 16


def test_the_table_holds_what_was_trained(build: Build) -> None:
    """Every answer with its rewards, their weighted sum and its advantage, which is that of its group."""
    words = (
        "rlhf.rewards=[{kind: python, function: letters:share, weight: 2}, numeric, {kind: length, max: 4}]"
    )
    rows = table(trained(build, words).context.out)
    assert [row["step"] for row in rows] == [0] * 8 + [1] * 8
    first = rows[0]
    assert first["prompt"].endswith("assistant\n") and f"What is {first['row'] - 1} +" in first["prompt"]
    for row in rows:
        parts = 2 * row["reward: share"] + row["reward: numeric"] + row["reward: length"]
        assert row["reward"] == pytest.approx(parts, abs=1e-6)
        assert row["reward: length"] == (-1 if row["tokens"] > 4 else 0)
        vowels = sum(c in "aeiou" for c in row["completion"]) / max(1, len(row["completion"]))
        assert row["reward: share"] == pytest.approx(vowels, abs=1e-6)
    rewards, advantages = grouped(rows, "reward"), grouped(rows, "advantage")
    by_hand = (rewards - rewards.mean(dim=1, keepdim=True)) / (rewards.std(dim=1, keepdim=True) + 1e-4)
    assert torch.allclose(advantages, by_hand, atol=1e-4)
    assert all(len({row["row"] for row in rows[at : at + 4]}) == 1 for at in range(0, 16, 4))


@pytest.mark.parametrize("loss_type", ["dapo", "rloo"])
def test_a_run_resumed_amid_a_buffer_and_in_a_second_epoch_goes_on_exactly(
    loss_type: str, build: Build
) -> None:
    """Six prompts, two a generation, two steps each: epochs of six steps; resumed in the second, at step 9."""
    words = [f"rlhf.loss_type={loss_type}", "rlhf.num_iterations=2", "data.max_samples=6", "training.max_steps=12",
             "training.save_strategy=steps", "training.save_steps=9", "training.logging_steps=2"]  # fmt: skip
    whole = trained(build, *words)
    resumed = trained(build, *words, resume=str(whole.context.out / "checkpoint-9"))
    assert torch.equal(weights(resumed), weights(whole))
    assert log_of(resumed) == log_of(whole)
    after = [row for row in table(whole.context.out) if row["step"] >= 9]
    assert after and table(resumed.context.out) == after
    asked = [row["row"] for row in table(whole.context.out)[::4]]
    assert sorted(asked[:6]) == sorted(asked[6:]) == [1, 2, 3, 4, 5, 6] and asked[:6] != asked[6:]


def test_a_reference_that_is_named_is_taken(build: Build, first: Path) -> None:
    """KL to the start is 0 at the first step, to another adapter it isn't; a saved adapter's start is the adapter."""
    start = trained(build, "rlhf.beta=0.1", "training.max_steps=1").state.log_history[0]["kl"]
    other = trained(build, "rlhf.beta=0.1", "training.max_steps=1", f"rlhf.ref_model_adapters={first}")
    given = trained(build, "rlhf.beta=0.1", "training.max_steps=1", f"model.adapter_name_or_path={first}")
    assert abs(start) < 1e-6 < other.state.log_history[0]["kl"]
    assert abs(given.state.log_history[0]["kl"]) < 1e-6


def test_too_few_prompts_and_missing_columns_are_refused(build: Build) -> None:
    with pytest.raises(Refused, match="holds 1 prompts, and 2 are answered at once"):
        build(*SHORT, "data.max_samples=1")
    with pytest.raises(
        Refused, match=r"column result, which \./sums\.jsonl row 1 lacks.*answer, instruction, output, level"
    ):
        build(*SHORT, "rlhf.rewards=[{kind: numeric, column: result}]")
    build(*SHORT, "rlhf.rewards=[{kind: numeric, column: level}]")


def test_a_row_that_no_reward_scores_ends_the_run(build: Build, tmp_path: Path) -> None:
    from llmf_hydra.errors import TrainingFailed

    (tmp_path / "partly.py").write_text(
        "def odd(prompts, completions, level):\n    return [1.0 if n % 2 else None for n in level]\n"
    )
    with pytest.raises(
        TrainingFailed, match=r"none of them scores \./sums\.jsonl row \d+: each returned None"
    ):
        trained(build, "rlhf.rewards=[python:partly:odd]", "training.max_steps=6")
    both = table(trained(build, "rlhf.rewards=[python:partly:odd, python:letters:share]").context.out)
    assert {row["reward: odd"] for row in both} == {1.0, None}


@pytest.mark.parametrize("kind", ["adapter", "model"])
def test_a_saved_reward_scores(kind: str, build: Build, tmp_path: Path) -> None:
    """Scores are those of the saved scorer, called here on the stored answers."""
    from support.ppo_runs import save_adapter, save_full

    scorer = save_adapter(tmp_path / "reward") if kind == "adapter" else save_full(tmp_path / "reward")
    trainer = trained(build, "rlhf.rewards=[model:./reward]", "training.max_steps=1")
    batch = trainer._buffered_inputs[0]
    scores = []
    for prompt, there, answer, kept in zip(
        *(batch[n] for n in ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")), strict=True
    ):
        ids = torch.cat([prompt[there.bool()], answer[kept.bool()]]).unsqueeze(0)
        with torch.no_grad():
            scores.append(float(scorer(input_ids=ids).logits))
    stored = [row["reward: model"] for row in table(trainer.context.out)]
    assert sorted(scores) == pytest.approx(sorted(stored), abs=1e-3)
