"""LoRA over a base in bfloat16 gives PEFT's own bytes: outputs, gradients, with dropout, switched off and merged."""

import copy

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import Linear
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from llmf_hydra.methods import mixed_linear
from llmf_hydra.methods.mixed_linear import MixedLinear


def model(dropout: float = 0.0, *, use_dora: bool = False) -> PeftModel:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    base = LlamaForCausalLM(LlamaConfig(vocab_size=64, **sizes)).to(torch.bfloat16)
    config = LoraConfig(
        r=4, lora_alpha=12, lora_dropout=dropout, target_modules="all-linear", use_dora=use_dora
    )
    made = get_peft_model(base, config)
    for name, weight in made.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight, std=0.1)
    return made


def computed(network: PeftModel) -> list[torch.Tensor]:
    """Outputs with gradients, without, and with the adapter off; and all gradients."""
    ids = torch.arange(60).reshape(3, 20)
    network.zero_grad()
    torch.manual_seed(1)
    network.train()
    trained = network(input_ids=ids).logits
    trained.float().pow(2).mean().backward()
    network.eval()
    with torch.no_grad():
        seen = network(input_ids=ids).logits
        with network.disable_adapter():
            off = network(input_ids=ids).logits
    return [trained, seen, off, *(weight.grad for weight in network.parameters() if weight.grad is not None)]


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_bytes_are_pefts(dropout: float) -> None:
    plain = model(dropout)
    ours = copy.deepcopy(plain)
    mixed_linear.install(ours)
    layers = [module for module in ours.modules() if isinstance(module, Linear)]
    assert len(layers) == 14 and all(type(layer) is MixedLinear for layer in layers)
    x = torch.zeros(1, 1, 32, dtype=torch.bfloat16)
    assert layers[0]._only_adapter(x) == "default"
    expected, found = computed(plain), computed(ours)
    assert len(found) == 3 + 28 and all(map(torch.equal, found, expected))
    assert not torch.equal(found[1], found[2])
    merged = [network.merge_and_unload().state_dict() for network in (plain, ours)]
    assert all(torch.equal(weight, merged[1][name]) for name, weight in merged[0].items())


def test_what_is_no_plain_adapter_is_left_to_peft() -> None:
    dora = model(use_dora=True)
    ours = copy.deepcopy(dora)
    mixed_linear.install(ours)
    assert all(map(torch.equal, computed(ours), computed(dora)))
    layer = next(module for module in ours.modules() if isinstance(module, MixedLinear))
    assert layer._only_adapter(torch.zeros(1, dtype=torch.bfloat16)) is None
    plain = model()
    mixed_linear.install(plain)
    layer = next(module for module in plain.modules() if isinstance(module, MixedLinear))
    assert layer._only_adapter(torch.zeros(1)) is None  # a base in float32: nothing is mixed
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer._only_adapter(torch.zeros(1, dtype=torch.bfloat16)) is None
