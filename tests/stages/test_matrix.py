"""Stage by method, from the real command line: train, evaluate, save. Runs that are killed have a test of their own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

METHODS = ("lora", "freeze", "full", "oft", "pissa")
STAGES = ("pt", "sft", "rm", "dpo", "kto", "ppo", "grpo")
COVERING = {
    ("pt", "full"),
    ("sft", "freeze"),
    ("rm", "lora"),
    ("dpo", "lora"),
    ("kto", "freeze"),
    ("ppo", "full"),
    ("grpo", "freeze"),
}
EACH = [
    pytest.param(stage, method, marks=[] if (stage, method) in COVERING else pytest.mark.slow)
    for stage in STAGES
    for method in METHODS
]
WORDS = ["model=tiny", "data.max_samples=40", "data.val_size=8", "training.logging_steps=1", "training.eval_steps=2",
         "training.save_steps=2", "training.max_steps=4", "training.learning_rate=0.01", "training.plot_loss=true",
         "training.per_device_train_batch_size=2"]  # fmt: skip


def losses(out: Path) -> dict[int, dict[str, float]]:
    """The loss of training and of evaluation by step, as they were logged last."""
    found: dict[int, dict[str, float]] = {}
    for line in map(json.loads, (out / "log.jsonl").read_text(encoding="utf8").splitlines()):
        found.setdefault(line["step"], {}).update({k: line[k] for k in ("loss", "eval_loss") if k in line})
    return {step: values for step, values in found.items() if values}


PPO = ["rlhf.reward_model=reward/final", "rlhf.reward_model_type=full", "generation.max_new_tokens=8"]
GRPO = ["rlhf.rewards=[regex:e.*e]", "rlhf.num_generations=2", "generation.max_new_tokens=8"]


@pytest.mark.parametrize(("stage", "method"), EACH)
def test_a_run_trains_evaluates_and_saves(
    stage: str, method: str, tmp_path: Path, environment: dict[str, str]
) -> None:
    def llmf(*words: str) -> None:
        done = subprocess.run([sys.executable, "-m", "llmf_hydra", *words], cwd=tmp_path, env=environment, text=True,
                              capture_output=True, check=False, timeout=240)  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stdout + done.stderr

    words = WORDS
    if stage == "ppo":
        llmf("stage=rm", "method=full", *WORDS, "hydra.run.dir=reward")
        words = [*WORDS, *PPO]
    if stage == "grpo":
        words = [*WORDS, *GRPO]
    llmf(f"stage={stage}", f"method={method}", *words, "hydra.run.dir=whole")
    whole = tmp_path / "whole"
    seen = losses(whole)
    assert set(seen) == {1, 2, 3, 4} and {step for step in seen if "eval_loss" in seen[step]} == {2, 4}
    assert {"training_loss.png", "eval_loss.png", "checkpoint-2", "checkpoint-4", "final"} <= {
        f.name for f in whole.iterdir()
    }
    weights = "adapter_model.safetensors" if method in ("lora", "oft", "pissa") else "model.safetensors"
    final, last = (load_file(whole / folder / weights) for folder in ("final", "checkpoint-4"))
    assert all((last[name] == weight).all() for name, weight in final.items())
