"""A step without numbers takes what the same step takes with them, and a few layers tell of many."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from support.small_models import llama, optimizer_of

from llmf_hydra.models.memory import step
from llmf_hydra.models.memory.live import LiveMemory
from llmf_hydra.models.memory.step import Batch, Pass, evaluation_pass, optimizer_buffers, training_pass

BATCH = Batch(lines=3, length=20, trained=31)
PLAIN = Pass(None, scores=False, checkpoints=False, layerwise=False)


def model(kind: str = "full", layers: int = 2, scores: bool = False) -> Any:
    made = llama(scores=scores, layers=layers).float()
    if kind == "lora":
        made = get_peft_model(made, LoraConfig(r=4, target_modules=["q_proj", "down_proj"], lora_dropout=0.1))
    elif kind == "frozen":
        for weight in made.model.layers[0].parameters():
            weight.requires_grad_(False)
    return made


@pytest.mark.parametrize("kind", ["full", "lora", "frozen"])
@pytest.mark.parametrize("changes", [{}, {"checkpoints": True}, {"layerwise": True}], ids=str)
def test_shapes_alone_take_what_numbers_take(kind: str, changes: dict[str, bool]) -> None:
    how = Pass(**{**vars(PLAIN), **changes})
    # The same attention on both: real attention has buffers of its own.
    real, bare = training_pass(model(kind), BATCH, how), training_pass(model(kind).to("meta"), BATCH, how)
    # What is computed again lies a little longer on the meta device, which the engine gives a thread of its own.
    assert real * 0.98 < bare < real * (1.25 if how.checkpoints else 1.02)
    assert evaluation_pass(model(kind).to("meta"), BATCH, how) < bare


def test_checkpoints_and_small_adapters_take_less() -> None:
    deep = {name: model(name, layers=8).to("meta") for name in ("full", "lora")}
    whole = training_pass(deep["full"], BATCH, PLAIN)
    assert training_pass(deep["lora"], BATCH, PLAIN) < whole
    assert training_pass(deep["full"], BATCH, Pass(**{**vars(PLAIN), "checkpoints": True})) < whole / 2


def test_autocast_keeps_copies_of_trained_weights_and_halves_activations() -> None:
    half = Pass(torch.bfloat16, scores=False, checkpoints=False, layerwise=False)
    short, long = Batch(1, 2, 2), Batch(8, 64, 8)
    copies = 2 * sum(weight.numel() for weight in model().parameters() if weight.dim() == 2)
    embedding = 2 * model().model.embed_tokens.weight.numel()
    assert training_pass(model().to("meta"), short, half) > copies - embedding
    assert training_pass(model().to("meta"), long, half) < training_pass(model().to("meta"), long, PLAIN)


@pytest.mark.parametrize("checkpoints", [False, True])
@pytest.mark.parametrize("kind", ["full", "lora"])
def test_a_few_layers_tell_of_many(kind: str, checkpoints: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    how = Pass(None, scores=False, checkpoints=checkpoints, layerwise=False)
    told = training_pass(model(kind, layers=9).to("meta"), BATCH, how)
    monkeypatch.setattr(step, "equal_layers", lambda _: None)
    assert told == training_pass(model(kind, layers=9).to("meta"), BATCH, how)


def test_a_head_of_scores_holds_no_logits_of_words() -> None:
    scored = Pass(None, scores=True, checkpoints=False, layerwise=False)
    wide = Batch(2, 16, trained=30)
    assert (
        0
        < training_pass(model(scores=True).to("meta"), wide, scored)
        < training_pass(model().to("meta"), wide, PLAIN)
    )


@pytest.mark.parametrize(
    "name", ["adamw", "sgd", "adafactor", "adam_mini", "muon", "galore", "apollo", "badam"]
)
def test_an_optimizer_takes_as_much_for_its_step_without_numbers(name: str) -> None:
    given = {f"{name}_rank": 4} if name in ("galore", "apollo") else {}
    bare = optimizer_buffers(optimizer_of(model().to("meta"), name, **given))
    built = optimizer_of(real := model(), name, **given)
    for _ in range(2):
        for weight in real.parameters():
            weight.grad = torch.ones_like(weight) if weight.requires_grad else None
        kept = [v for state in built.state.values() for v in state.values() if isinstance(v, torch.Tensor)]
        gradients = [weight.grad for weight in real.parameters() if weight.grad is not None]
        with LiveMemory([*real.parameters(), *gradients, *kept]) as memory:
            built.step()
    assert bare == pytest.approx(memory.peak, rel=0.15, abs=2048)
