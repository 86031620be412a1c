"""The estimate of memory counts the models beside the policy, and the answers that PPO will sample."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.stage_runs import composed
from transformers import AutoModelForSequenceClassification, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from llmf_hydra.models.builtin import tiny
from llmf_hydra.models.memory.estimate import PARTS, Estimate

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _here(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMF_CACHE", str(cache))
    monkeypatch.chdir(tmp_path)


def estimated(*words: str) -> Estimate:
    from llmf_hydra.jobs import assemble

    return assemble.load_inputs(composed("data.max_samples=20", "data.val_size=4", *words)).estimate


def test_a_reference_of_its_own_takes_room() -> None:
    full, free = estimated("stage=dpo", "method=full"), estimated("stage=dpo", "method=full", "rlhf=orpo")
    assert full.weights == 2 * free.weights == 8 * full.parameters  # float32, twice
    lora = estimated("stage=dpo")
    named = estimated("stage=dpo", "rlhf.ref_model=builtin:tiny")
    four = estimated("stage=dpo", "rlhf.ref_model=builtin:tiny", "rlhf.ref_model_quantization_bit=4")
    assert named.weights - lora.weights == pytest.approx(4 * lora.parameters, rel=0.01)
    stays = 4 * (1024 + 5) * 64  # bytes of the embeddings and norms
    linear = named.weights - lora.weights - stays
    assert four.weights - lora.weights - stays == pytest.approx(0.516 / 4 * linear, rel=0.01)


def test_quantized_weights_take_less_room_and_trained_ones_as_much() -> None:
    whole = estimated("stage=sft")
    for words, bits in {
        "quantization=bnb4": 4.127,
        "quantization=bnb8": 8.4,
        "quantization=hqq2": 3.0,
    }.items():
        less = estimated("stage=sft", words)
        assert less.trained == whole.trained and less.gradients == whole.gradients
        linear = 2 * 36_864 * 4 * (1 - bits / 32)
        assert whole.weights - less.weights == pytest.approx(linear, rel=0.02), words


def test_ppo_counts_its_reward_model_and_its_answers() -> None:
    words = ["stage=ppo", "rlhf.reward_model=builtin:tiny", "generation.max_new_tokens=8"]
    adapter = estimated(*words)
    own = estimated(*words, "rlhf.reward_model_type=full")
    assert own.weights - adapter.weights == pytest.approx(4 * adapter.parameters, rel=0.01)
    longer = estimated(*words, "generation.max_new_tokens=512")
    assert longer.activations > 2 * adapter.activations and longer.weights == adapter.weights


def test_groups_count_their_listed_rewards_and_what_is_answered_at_once(tmp_path: Path) -> None:
    words = ["stage=grpo", "generation.max_new_tokens=512", "training.per_device_train_batch_size=8"]
    plain = estimated(*words, "rlhf.rewards=[length:8]")
    model = AutoModelForSequenceClassification.from_pretrained(tiny.ready(), num_labels=1)
    model.save_pretrained(tmp_path / "reward")
    listed = estimated(*words, f"rlhf.rewards=[length:8,model:{tmp_path}/reward]")
    assert listed.weights - plain.weights == pytest.approx(4 * plain.parameters, rel=0.01)
    many = estimated(*words, "rlhf.rewards=[length:8]", "training.gradient_accumulation_steps=64")
    cache = 64 * 8 * 512 * 2 * 64 * 4 * 2  # keys and values of 64 numbers in float32 in 2 layers
    assert many.activations > max(cache, 2 * plain.activations)
    batch, short = "training.per_device_train_batch_size", "generation.max_new_tokens=16"
    fewer, more = (estimated("stage=grpo", short, f"{batch}={size}").activations for size in (16, 32))
    assert 1.8 < more / fewer < 2.2, "whole lines, however few the prompts are"


def test_as_many_packs_are_counted_as_there_are() -> None:
    words = ["stage=pt", "data.max_samples=4", "data.val_size=0", "training.eval_strategy=no"]
    batch = "training.per_device_train_batch_size"
    one, two = (estimated(*words, "data.cutoff_len=1024", f"{batch}={size}") for size in (1, 2))
    assert one.activations == two.activations, "all rows fit into one pack"
    short = [estimated(*words, "data.cutoff_len=128", f"{batch}={size}").activations for size in (1, 2)]
    assert short[1] > 1.8 * short[0]


def test_a_model_that_names_its_sizes_otherwise_is_estimated(tmp_path: Path) -> None:
    """GPT-2 has no `intermediate_size`."""
    GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=1024)).save_pretrained("gpt2")
    AutoTokenizer.from_pretrained(tiny.ready()).save_pretrained("gpt2")
    found = estimated("stage=sft", f"model.model_name_or_path={tmp_path}/gpt2")
    assert found.activations > 0 and found.trained > 0


def test_the_parts_add_up() -> None:
    found = estimated("stage=sft", "method=full")
    parts = {name: getattr(found, name) for name in PARTS}
    assert found.total == sum(parts.values()) == found.as_dict()["total"]
    assert all(f"{name} " in found.line() for name in parts) and parts["process"] > 2**28
    assert estimated("stage=sft", "data.cutoff_len=32").activations < estimated("stage=sft").activations


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "row",
    ["sft, full, adamw, batch 4", "dpo, lora, batch 4", "sft, lora, batch 8, checkpoints", "grpo, lora"],
)
def test_the_estimate_is_near_what_a_run_takes(row: str) -> None:
    command = [
        sys.executable,
        "-m",
        "benchmarks.estimates",
        "smollm2",
        "--only",
        row,
        "--steps",
        "4",
        "--json",
    ]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert all(abs(found["off"]) < 15 for found in json.loads(done.stdout).values()), done.stdout
