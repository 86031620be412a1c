"""Recomputed elementwise results change no bit of a loss or a gradient, and need less memory."""

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn import functional as F
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    Phi3Config,
    Qwen3Config,
)

from llmf_hydra.models.activations.apply import keep_less
from llmf_hydra.models.activations.recompute import Recipe, Recomputed
from llmf_hydra.models.memory.live import LiveMemory
from llmf_hydra.models.memory.step import Batch, Pass, training_pass
from llmf_hydra.models.target_logprobs import target_log_probs

SHAPE: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
         "num_key_value_heads": 2, "vocab_size": 128, "head_dim": 8, "pad_token_id": 2}  # fmt: skip
CONFIGS: dict[str, Any] = {
    "llama": LlamaConfig(**SHAPE),
    "qwen3": Qwen3Config(**SHAPE),
    "gemma2": Gemma2Config(**SHAPE, sliding_window=16),
    "gemma3": Gemma3TextConfig(**SHAPE, sliding_window=16),
    "mistral": MistralConfig(**SHAPE, sliding_window=16),
    "phi3": Phi3Config(**SHAPE),
    "cohere": CohereConfig(**SHAPE),
    "mixtral": MixtralConfig(**SHAPE, num_local_experts=2),
    "gpt2": GPT2Config(n_embd=32, n_layer=3, n_head=4, vocab_size=128),
}
IDS = (torch.arange(2 * 48).view(2, 48) * 7) % 128


def network(kind: str, method: str, dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[kind]).to(dtype)
    if method == "lora":
        named = {"gpt2": ["c_attn", "c_proj"], "mixtral": ["q_proj", "k_proj", "v_proj", "o_proj"]}
        targets = named.get(kind, "all-linear")
        config = LoraConfig(r=4, target_modules=targets, lora_dropout=0.1, init_lora_weights=False)
        model = get_peft_model(model, config)
    return model.train()


def step(model: Any, *, autocast: bool = False) -> tuple[torch.Tensor, dict[str, torch.Tensor], int]:
    """The loss, the gradients, and the bytes that live when the backward pass begins."""
    torch.manual_seed(1)
    memory = LiveMemory([*model.parameters(), *model.buffers()])
    with memory:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            logits = model(input_ids=IDS, use_cache=False).logits
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), IDS[:, 1:].flatten())
        held = memory.now
        loss.backward()
    return loss.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}, held


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize(
    ("method", "dtype", "autocast"),
    [("lora", torch.float32, False), ("lora", torch.bfloat16, False), ("full", torch.float32, True)],
    ids=["lora", "lora in bfloat16", "full under autocast"],
)
def test_every_bit_is_as_before_and_less_is_held(
    kind: str, method: str, dtype: torch.dtype, autocast: bool
) -> None:
    plain = network(kind, method, dtype)
    less = keep_less(copy.deepcopy(plain))
    loss, gradients, held = step(plain, autocast=autocast)
    again, others, held_less = step(less, autocast=autocast)
    assert torch.equal(loss, again) and gradients.keys() == others.keys() and gradients
    assert all(torch.equal(gradient, others[name]) for name, gradient in gradients.items())
    assert held_less < 0.85 * held


def test_a_copy_of_a_model_recomputes_too_and_an_evaluation_does_not() -> None:
    model = copy.deepcopy(keep_less(network("llama", "full")))
    assert step(model)[2] < 0.75 * step(network("llama", "full"))[2]
    packed: list[object] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda one: packed.append(one) or one, lambda one: one):
        model.eval()(input_ids=IDS)
    assert not any(isinstance(one, Recipe) for one in packed)


def test_a_forward_pass_that_fails_leaves_nothing_behind() -> None:
    model = keep_less(network("llama", "full"))
    with pytest.raises(IndexError):
        model(input_ids=IDS + 1000)
    assert torch.equal(step(model)[0], step(network("llama", "full"))[0])


def test_what_is_changed_in_place_is_not_used_unseen() -> None:
    gate = torch.randn(64, 64, requires_grad=True)
    up, down = torch.randn(64, 64, requires_grad=True), nn.Linear(64, 64)
    mode = Recomputed(lambda: iter(down.parameters()))
    with mode:
        half = gate * 1
        result = down(F.silu(half) * up)
        half.add_(1)
    with pytest.raises(RuntimeError, match="in place"):
        result.sum().backward()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_targets_in_chunks_have_the_same_bits(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmf_hydra.models.target_logprobs.CHUNK", 7 * 1000 + 1)
    torch.manual_seed(0)
    logits, targets = 3 * torch.randn(50, 1000, dtype=dtype), torch.randint(0, 1000, (50,))
    weights, whole, cut = torch.randn(50), logits.clone().requires_grad_(), logits.clone().requires_grad_()
    simple = torch.log_softmax(whole.float(), dim=-1).gather(1, targets[:, None]).squeeze(1)
    (simple * weights).sum().backward()
    with LiveMemory([cut]) as memory:
        found = target_log_probs(cut, targets, top=True)
        (found.log_probs * weights).sum().backward()
    assert torch.equal(found.log_probs, simple) and torch.equal(cut.grad, whole.grad)  # pyright: ignore
    assert found.is_top is not None and torch.equal(found.is_top, logits.float().argmax(dim=-1) == targets)
    assert memory.peak < logits.nbytes + 4 * 4 * 7 * 1000 + 4096


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_shapes_alone_tell_what_a_step_takes(autocast: torch.dtype | None) -> None:
    how = Pass(autocast, scores=False, checkpoints=False, layerwise=False)
    batch = Batch(lines=2, length=48, trained=40)
    real, bare = (
        training_pass(keep_less(network("llama", "full")).to(where), batch, how) for where in ("cpu", "meta")
    )
    assert real * 0.98 < bare < real * 1.02
    assert bare < 0.8 * training_pass(network("llama", "full").to("meta"), batch, how)
