"""Each parameter of PPO changes what is trained; batches, interrupted runs and shared weights change nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from support.ppo_runs import SHORT, save_adapter, save_full, served, share_of_vowels

from llmf_hydra.errors import Refused

Build = Any


@pytest.fixture
def reward(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The folder of a reward adapter."""
    monkeypatch.setenv("LLMF_CACHE", str(cache))
    save_adapter(tmp_path / "reward")
    return str(tmp_path / "reward")


def lines(build: Build, *words: str, resume: str | None = None) -> tuple[Any, list[dict[str, Any]]]:
    """Train; the trainer and its log, without what the clock says."""
    trainer = build("stage=ppo", *SHORT, *words)
    trainer.train(resume_from_checkpoint=resume)
    clock = (
        "train_runtime",
        "train_samples_per_second",
        "train_steps_per_second",
        "rollout/tokens_per_second",
    )
    return trainer, [
        {k: v for k, v in line.items() if k not in clock and not k.startswith("eval_runtime")}
        for line in trainer.state.log_history
    ]


def weights(trainer: Any) -> torch.Tensor:
    """All trained weights as one vector."""
    return torch.cat([w.detach().flatten() for w in trainer.model.parameters() if w.requires_grad])


def apart(one: Any, other: Any) -> float:
    """The largest difference of a trained weight."""
    return float((weights(one) - weights(other)).abs().max())


CHANGES = ("rlhf.ppo_buffer_size=2", "rlhf.ppo_epochs=1", "rlhf.ppo_score_norm=true", "rlhf.ppo_whiten_rewards=true",
           "rlhf.ppo_target=0.001", "generation.temperature=0.7", "training.seed=7")  # fmt: skip


def test_each_parameter_changes_the_weights(build: Build, reward: str) -> None:
    """Four buffers: the coefficient moves after the third, in which the policy has left its reference."""
    words = [f"rlhf.reward_model={reward}", "training.max_steps=8"]
    plain, _ = lines(build, *words)
    assert apart(plain, lines(build, *words)[0]) == 0.0
    for change in CHANGES:
        assert apart(plain, lines(build, *words, change)[0]) > 1e-7, change


def test_a_buffer_holds_its_batches_and_is_passed_over_as_often_as_asked(build: Build, reward: str) -> None:
    trainer, log = lines(build, f"rlhf.reward_model={reward}", "rlhf.ppo_buffer_size=2", "rlhf.ppo_epochs=3",
                         "training.max_steps=12")  # fmt: skip
    assert [line["step"] for line in log if "objective/kl" in line] == [1, 7]  # a buffer lasts 2 x 3 steps
    assert len(trainer.source.buffer.keys) == 8


def test_batch_and_accumulation_do_not_matter(build: Build, reward: str) -> None:
    """(4, 1), (2, 2) and (1, 4): the same rollouts, losses and weights."""
    runs = [
        lines(build, f"rlhf.reward_model={reward}", f"training.per_device_train_batch_size={batch}", "optimizer=sgd",
              f"training.gradient_accumulation_steps={4 // batch}", "rlhf.ppo_buffer_size=2")
        for batch in (4, 2, 1)
    ]  # fmt: skip
    for trainer, log in runs[1:]:
        assert apart(trainer, runs[0][0]) < 1e-6
        for name in ("loss", "objective/scores", "policy/clipfrac_avg"):
            known = [line[name] for line in runs[0][1] if name in line]
            assert [line[name] for line in log if name in line] == pytest.approx(known, abs=1e-5)


def test_a_resumed_run_is_the_straight_one(build: Build, reward: str) -> None:
    """Interrupted within a buffer and with dropout: the same log from there on, and the same weights."""
    words = [f"rlhf.reward_model={reward}", "training.max_steps=8", "training.save_strategy=steps",
             "training.save_steps=3", "method.lora_dropout=0.2", "rlhf.ppo_buffer_size=2",
             "rlhf.ppo_score_norm=true", "data.max_samples=8"]  # fmt: skip
    straight, log = lines(build, *words)
    for step in (3, 6):
        checkpoint = Path(straight.args.output_dir) / f"checkpoint-{step}"
        resumed, rest = lines(build, *words, resume=str(checkpoint))
        assert apart(straight, resumed) == 0.0
        assert rest[:-1] == log[:-1]  # the last line holds times
    as_the_first_version_wrote_it(checkpoint)
    resumed, rest = lines(build, *words, resume=str(checkpoint))
    assert apart(straight, resumed) == 0.0 and rest[:-1] == log[:-1]


def as_the_first_version_wrote_it(checkpoint: Path) -> None:
    """PPO's state in a file of its own, and nothing of the other parts."""
    file = checkpoint / "stage_state_0.pt"
    state = torch.load(file, weights_only=True)
    torch.save({**state["rollouts"], **state["advantages"]}, checkpoint / "ppo_state_0.pt")
    file.unlink()


def test_policy_reference_reward_and_value_share_one_base(build: Build, reward: str) -> None:
    """Under LoRA all weights but adapters and heads are there once, and none of them moves."""
    trainer = build("stage=ppo", *SHORT, f"rlhf.reward_model={reward}")
    policy, collector = trainer.model.policy, trainer.collector
    assert isinstance(policy, PeftModel)
    assert collector.judge.reference.own is None and collector.reward.host is policy
    before = {
        n: w.detach().clone() for n, w in policy.named_parameters() if not n.endswith(".default.weight")
    }
    trainer.train()
    assert all(torch.equal(before[n], w) for n, w in policy.named_parameters() if n in before)
    assert sum("reward" in name for name in before) > 0


def test_a_full_run_keeps_its_reference_and_puts_the_reward_on_it(build: Build, reward: str) -> None:
    trainer = build("stage=ppo", *SHORT, "method=full", f"rlhf.reward_model={reward}")
    reference = trainer.collector.judge.reference.own
    assert trainer.collector.reward.host is reference
    start = {name: weight.clone() for name, weight in reference.named_parameters()}
    trainer.train()
    log = trainer.state.log_history
    assert all(torch.equal(start[name], weight) for name, weight in reference.named_parameters())
    kls = [line["objective/kl"] for line in log if "objective/kl" in line]
    assert abs(kls[0]) < 1e-5 < abs(kls[1])  # the policy begins as the reference, and leaves it
    lora, _ = lines(build, f"rlhf.reward_model={reward}")
    scores = [next(line["objective/scores"] for line in t.state.log_history if "objective/scores" in line)
              for t in (trainer, lora)]  # fmt: skip
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)  # the same answers of the same start


def test_the_reference_is_the_one_that_is_named(build: Build, reward: str, tmp_path: Path) -> None:
    lora, log = lines(build, f"rlhf.reward_model={reward}")
    other = tmp_path / "other"
    policy = lora.model.policy.get_base_model()
    with torch.no_grad():
        tied = policy.lm_head.weight
        kept = tied.clone()
        tied.normal_(std=0.3)
    lora.model.policy.unload().save_pretrained(other)
    with torch.no_grad():
        tied.copy_(kept)
    named, apart_log = lines(build, f"rlhf.reward_model={reward}", f"rlhf.ref_model={other}")
    assert named.collector.judge.reference.own is not None
    assert abs(log[0]["objective/kl"]) < 1e-5 < 1 < apart_log[0]["objective/kl"]


def test_the_type_of_reward_decides_what_scores(build: Build, reward: str, tmp_path: Path) -> None:
    save_full(tmp_path / "model")
    own = ["rlhf.reward_model_type=full", f"rlhf.reward_model={tmp_path / 'model'}"]
    first = {}
    with served(share_of_vowels) as service:
        for name, words in {
            "lora": [f"rlhf.reward_model={reward}"],
            "full": own,
            "adapted": [*own, f"rlhf.reward_model_adapters={reward}"],
            "api": ["rlhf.reward_model_type=api", f"rlhf.reward_model={service.url}"],
        }.items():
            first[name] = lines(build, *words, "training.max_steps=1")[1][0]["objective/scores"]
    assert first["adapted"] == pytest.approx(first["lora"], abs=1e-4)  # merged, or beside: the same scores
    assert len({round(score, 4) for score in first.values()}) == 3


def test_what_is_no_reward_is_refused(build: Build, tmp_path: Path, cache: Path, reward: str) -> None:
    trainer = build("stage=ppo", *SHORT, f"rlhf.reward_model={reward}")
    trainer.model.save_pretrained(tmp_path / "policy")  # an adapter of a policy: it has no head that scores
    with pytest.raises(Refused, match="no head that scores"):
        build("stage=ppo", *SHORT, f"rlhf.reward_model={tmp_path / 'policy'}")
    (start,) = (cache / "models").glob("tiny-*")
    with pytest.raises(Refused, match="its head doesn't score"):
        build("stage=ppo", *SHORT, "rlhf.reward_model_type=full", f"rlhf.reward_model={start}")


def test_samples_and_evaluation(build: Build, reward: str) -> None:
    words = [
        "training.eval_strategy=steps",
        "training.eval_steps=2",
        "data.val_size=6",
        "data.max_samples=20",
    ]
    trainer, log = lines(build, f"rlhf.reward_model={reward}", *words)
    shown = [
        json.loads(line)
        for line in (Path(trainer.args.output_dir) / "samples.jsonl").read_text().splitlines()
    ]
    assert [line["step"] for line in shown] == [0, 0, 2, 2]  # two a buffer of two steps
    assert all(line["prompt"].endswith("<|im_start|>assistant\n") and line["tokens"] <= 4 for line in shown)
    evaluations = [line for line in log if "eval_loss" in line]
    assert [line["step"] for line in evaluations] == [2, 4]
    for line in evaluations:
        assert line["eval_loss"] == pytest.approx(-line["eval_objective/rlhf_reward"], abs=1e-6)
    assert evaluations[0]["eval_objective/kl"] != evaluations[1]["eval_objective/kl"]
    plain, _ = lines(build, f"rlhf.reward_model={reward}", "data.val_size=6", *words[:1], "training.eval_steps=4",
                     "data.max_samples=20")  # fmt: skip
    assert apart(trainer, plain) == 0.0  # looking changes nothing


def test_the_value_head_learns_what_answers_are_worth(build: Build) -> None:
    """A service that gives 3 for everything: values come near it, and the advantage is gone."""
    with served(lambda body: (200, {"scores": [3.0] * len(body["samples"])})) as service:
        _, log = lines(build, "rlhf.reward_model_type=api", f"rlhf.reward_model={service.url}", "training.max_steps=60",
                       "training.learning_rate=0.03", "data.max_samples=64")  # fmt: skip
    losses = [line["loss/value_avg"] for line in log if "loss/value_avg" in line]
    assert losses[0] > 3 and losses[-1] < 0.3


def test_checkpointed_activations_train_the_same(build: Build, reward: str) -> None:
    plain, _ = lines(build, f"rlhf.reward_model={reward}", "training.neftune_noise_alpha=1")
    saving, _ = lines(
        build,
        f"rlhf.reward_model={reward}",
        "training.neftune_noise_alpha=1",
        "model.disable_gradient_checkpointing=false",
    )
    assert apart(plain, saving) < 1e-6


def test_freeze_trains_the_last_layer_and_the_value_head(build: Build, reward: str) -> None:
    trainer, _ = lines(
        build, "method=freeze", "method.freeze_trainable_layers=1", f"rlhf.reward_model={reward}"
    )
    trained = {name for name, weight in trainer.model.named_parameters() if weight.requires_grad}
    assert {name.split(".")[0] for name in trained} == {"policy", "value_head"}
    assert all("layers.1." in name for name in trained if name.startswith("policy"))


def test_early_stopping_looks_at_the_prompts_held_out(build: Build, reward: str) -> None:
    words = ["data.val_size=6", "data.max_samples=20", "training.eval_strategy=steps", "training.eval_steps=1",
             "training.save_strategy=steps", "training.save_steps=1", "training.max_steps=8",
             "training.metric_for_best_model=eval_objective/kl", "training.greater_is_better=false",
             "training.early_stopping_patience=2"]  # fmt: skip
    trainer, log = lines(build, f"rlhf.reward_model={reward}", *words)
    seen = [line["eval_objective/kl"] for line in log if "eval_objective/kl" in line]
    assert len(seen) == seen.index(min(seen)) + 3 == trainer.state.global_step < 8
