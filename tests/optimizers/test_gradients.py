"""Gradients that lie in the same memory in all steps."""

import torch
from peft import LoraConfig, get_peft_model
from support.small_models import llama, loss

from llmf_hydra.optimizers.common.gradients import keep_in_place


def test_gradients_are_the_same_numbers_in_the_same_memory() -> None:
    """Over accumulation and steps; a weight that no loss depends on still has none."""
    plain, kept = (get_peft_model(llama(), LoraConfig(r=2, init_lora_weights=False)) for _ in range(2))
    kept.load_state_dict(plain.state_dict())
    idle = torch.nn.Parameter(torch.zeros(2))
    weights = {name: weight for name, weight in kept.named_parameters() if weight.requires_grad}
    keep_in_place([*weights.values(), idle])
    places = []
    for step in range(2):
        for model in (plain, kept):
            model.zero_grad()
            for micro in range(2):
                loss(model, 2 * step + micro).backward()
        expected = {name: weight.grad for name, weight in plain.named_parameters() if weight.requires_grad}
        assert all(torch.equal(weights[name].grad, gradient) for name, gradient in expected.items())
        places.append([weight.grad.data_ptr() for weight in weights.values()])
    assert places[0] == places[1] and len(set(places[0])) == len(weights) > 0
    assert idle.grad is None
