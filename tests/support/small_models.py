"""A Llama of a few thousand weights in float64, and training it by hand: what the tests of optimizers share."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from llmf_hydra.config.groups.optimizer import OptimizerConfig
from llmf_hydra.optimizers.build import build_optimizer

RATE, DECAY = 0.02, 0.1
HIDDEN, INNER, HEADS, KEYS, VOCABULARY, LAYERS = 16, 24, 4, 2, 32, 2
Weights = dict[str, torch.Tensor]
Step = Callable[[int, Weights, Weights], Weights]  # number, weights, gradients -> weights


def llama(scores: bool = False, layers: int = LAYERS) -> Any:
    """The same weights each time."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=INNER,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        num_key_value_heads=KEYS,
        num_labels=1,
        pad_token_id=0,
        tie_word_embeddings=False,
    )
    return (LlamaForSequenceClassification if scores else LlamaForCausalLM)(config).double()


def loss(model: nn.Module, number: int) -> torch.Tensor:
    """The loss of one batch, another one for each number."""
    generator = torch.Generator().manual_seed(number)
    ids = torch.randint(1, VOCABULARY, (2, 7), generator=generator)
    logits = model(input_ids=ids, use_cache=False).logits
    if logits.dim() == 2:
        return logits.square().mean() + logits.mean()
    return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def optimizer_of(model: nn.Module, name: str, **settings: object) -> torch.optim.Optimizer:
    """As a run builds it, with the weight decay of these tests."""
    given: dict[str, Any] = {"weight_decay": DECAY, **settings}
    return build_optimizer(model, OptimizerConfig(name=name, **given), RATE, seed=7)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, first: int = 0) -> Weights:
    """The weights after so many steps."""
    for number in range(first, first + steps):
        loss(model, number).backward()
        optimizer.step()
        model.zero_grad()
    return weights_of(model)


def trained_by(step: Step, steps: int, model: nn.Module | None = None) -> Weights:
    """The weights after so many steps of a reference, which is handed weights and gradients by name."""
    model = llama() if model is None else model
    for number in range(steps):
        model.requires_grad_(True)
        loss(model, number).backward()
        gradients = {name: weight.grad.clone() for name, weight in model.named_parameters()}
        model.zero_grad()
        after = step(number, weights_of(model), gradients)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                weight.copy_(after[name])
    return weights_of(model)


def weights_of(model: nn.Module) -> Weights:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def decayed(name: str) -> float:
    """The weight decay of a weight: norms have none."""
    return 0.0 if "norm" in name else DECAY


def is_linear(name: str) -> bool:
    """Whether it is the weight of a linear layer other than the head."""
    return "_proj" in name


def close(found: Weights, expected: Weights, tolerance: float = 1e-9) -> bool:
    """Whether all weights are the same but for rounding."""
    return all(torch.allclose(found[name], expected[name], rtol=0, atol=tolerance) for name in expected)


class AdamW:
    """AdamW by its own paper (arXiv:1711.05101, algorithm 2), a moment of each name."""

    def __init__(self, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8):
        self.betas, self.epsilon = (beta1, beta2), epsilon
        self.m: Weights = {}
        self.v: Weights = {}
        self.t: dict[str, int] = {}

    def direction(self, name: str, gradient: torch.Tensor) -> torch.Tensor:
        beta1, beta2 = self.betas
        self.t[name] = t = self.t.get(name, 0) + 1
        self.m[name] = beta1 * self.m.get(name, 0) + (1 - beta1) * gradient
        self.v[name] = beta2 * self.v.get(name, 0) + (1 - beta2) * gradient**2
        return (self.m[name] / (1 - beta1**t)) / ((self.v[name] / (1 - beta2**t)).sqrt() + self.epsilon)

    def step(self, name: str, weight: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        return weight - RATE * decayed(name) * weight - RATE * self.direction(name, gradient)
