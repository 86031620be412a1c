"""`training.activation_memory`: as few layers are checkpointed as the budget allows, and nothing else changes."""

from typing import Any

import pytest
import torch
from support.command_line import Cli
from support.stage_runs import SGD, Build, composed

from llmf_hydra.errors import Refused
from llmf_hydra.jobs import assemble
from llmf_hydra.models.activations.apply import base_of
from llmf_hydra.models.activations.layers import checkpointed_layers
from llmf_hydra.models.memory.budget import FREE, MIB, checkpointed
from llmf_hydra.models.memory.estimate import Estimate
from llmf_hydra.models.memory.live import LiveMemory
from llmf_hydra.models.memory.step import Growth

KEY = "training.activation_memory"
PLAIN, WHOLE = Growth(10 * MIB, 8 * MIB, 0, 10), Growth(18 * MIB, MIB, 0, 10)


def test_as_few_layers_as_the_budget_allows() -> None:
    assert checkpointed(PLAIN, WHOLE, 90, 0) == (0, 90 * MIB)
    assert checkpointed(PLAIN, WHOLE, 89, 0) == (1, 83 * MIB)
    assert checkpointed(PLAIN, WHOLE, 50, 0) == (6, 48 * MIB)
    assert checkpointed(PLAIN, WHOLE, FREE, 56 * MIB) == (6, 48 * MIB)  # a tenth is left
    assert checkpointed(PLAIN, WHOLE, FREE, 0).layers == 9  # which is told
    assert checkpointed(PLAIN, WHOLE, 28, 0) == (9, 27 * MIB)
    with pytest.raises(Refused, match="takes 27 MiB with 9 of 10 layers checkpointed, and no less"):
        checkpointed(PLAIN, WHOLE, 20, 0)


def trained(build: Build, *words: str) -> tuple[Any, list[float], int]:
    """The trainer, its losses and the most bytes that lived in a step beside what was there."""
    trainer = build("stage=sft", *SGD, "training.max_steps=2", "training.learning_rate=0.1", *words)
    peaks: list[int] = []
    original = trainer.training_step

    def watched(*args: Any, **kwargs: Any) -> torch.Tensor:
        with LiveMemory([*trainer.model.parameters(), *trainer.model.buffers()]) as memory:
            loss = original(*args, **kwargs)
        peaks.append(memory.peak)
        return loss

    trainer.training_step = watched
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    return trainer, losses, max(peaks)


def estimate_of(*words: str) -> Estimate:
    return assemble.load_inputs(composed("stage=sft", *SGD, *words)).estimate


def test_a_smaller_budget_takes_less_memory_and_gives_the_same_losses(build: Build) -> None:
    size, peaks, losses = "training.per_device_train_batch_size=8", [], []
    for layers, budget in enumerate((64, 8)):
        trainer, found, peak = trained(build, size, f"{KEY}={budget}")
        assert estimate_of(size, f"{KEY}={budget}").checkpointed == layers
        flags = [
            layer.gradient_checkpointing for layer in checkpointed_layers(base_of(trainer.context.model))
        ]
        assert flags == [True] * layers + [False] * (2 - layers)  # the first ones
        peaks.append(peak)
        losses.append(found)
    assert peaks[0] > peaks[1]
    assert losses[0] == losses[1]


def test_the_budget_replaces_the_shipped_switch_and_contradicts_a_given_one(cli: Cli) -> None:
    words = [
        "stage=sft",
        "model=tiny",
        "job=check",
        "data.max_samples=16",
        "training.per_device_train_batch_size=8",
    ]
    done = cli(*words, f"{KEY}=7")
    assert done.returncode == 0 and "layers checkpointed: 1" in done.stdout + done.stderr, done.stderr
    assert cli(*words, f"{KEY}=-2").returncode == 2
    for given, said in {
        f"{KEY}=0": "with 1 of 2 layers checkpointed, and no less",
        f"{KEY}=64 model.disable_gradient_checkpointing=true": "model.disable_gradient_checkpointing=true",
    }.items():
        refused = cli(*words, *given.split())
        assert refused.returncode == 2 and said in refused.stderr and KEY in refused.stderr
