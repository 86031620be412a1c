"""Rows end to end give the numbers and gradients of padded rows, in every kind of model that may take them so."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    Phi3Config,
    PretrainedConfig,
    Qwen3Config,
)

from llmf_hydra.models.architecture import padding_free
from llmf_hydra.models.architecture.padding_free import Rows, end_to_end, unfit

TINY: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 97, "max_position_embeddings": 128, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
LENGTHS = (17, 5, 23)
CONFIGS: dict[str, Callable[[], PretrainedConfig]] = {
    "llama": lambda: LlamaConfig(**TINY),
    "qwen3": lambda: Qwen3Config(**TINY, head_dim=8),
    "gemma3, a window of 8": lambda: Gemma3TextConfig(
        **TINY, head_dim=8, sliding_window=8, layer_types=["sliding_attention", "full_attention"]
    ),
    "mistral, a window of 6": lambda: MistralConfig(**TINY, sliding_window=6),
    "phi3": lambda: Phi3Config(**TINY),
    "mixtral": lambda: MixtralConfig(**TINY, num_local_experts=4, output_router_logits=True),
}
Ids = list[torch.Tensor]


@pytest.fixture(autouse=True)
def registered() -> None:
    padding_free.register()


def model_of(name: str) -> Any:
    """Weights far from uniform, so that a wrong border shows."""
    torch.manual_seed(0)
    config = CONFIGS[name]()
    config._attn_implementation = "sdpa"
    model = AutoModelForCausalLM.from_config(config).float()
    for weight in model.parameters():
        if weight.dim() > 1:
            nn.init.normal_(weight, std=0.2)
    return model


def rows(lengths: tuple[int, ...] = LENGTHS) -> Ids:
    made = torch.Generator().manual_seed(1)
    return [torch.randint(1, 97, (length,), generator=made) for length in lengths]


def padded(model: nn.Module, ids: Ids) -> tuple[torch.Tensor, Any]:
    """Logits of all tokens of the rows, (tokens, vocabulary), and the whole output."""
    mask = nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)
    output = model(
        input_ids=nn.utils.rnn.pad_sequence(ids, batch_first=True), attention_mask=mask, use_cache=False
    )
    return output.logits[mask.bool()], output


def in_line(model: nn.Module, ids: Ids, *, every_layer: bool = True) -> tuple[torch.Tensor, Any]:
    line = torch.cat(ids)[None]
    positions = torch.cat([torch.arange(len(row)) for row in ids])[None]
    with end_to_end(Rows(tuple(map(len, ids))), every_layer=every_layer):
        output = model(
            input_ids=line, attention_mask=torch.ones_like(line), position_ids=positions, use_cache=False
        )
    return output.logits[0], output


def gradients(model: nn.Module, logits: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    logits.log_softmax(dim=-1)[:, 5].mean().backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("checkpoints", [False, True], ids=["plain", "checkpoints"])
@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("name", CONFIGS)
def test_numbers_and_gradients_are_those_of_padded_rows(name: str, method: str, checkpoints: bool) -> None:
    model = model_of(name)
    assert unfit(model) is None
    if method == "lora":
        model = get_peft_model(model, LoraConfig(target_modules=["o_proj"], r=4, init_lora_weights=False))
        model.enable_input_require_grads()
    if checkpoints:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    wanted, theirs = padded(model, rows())
    expected = gradients(model, wanted)
    found, ours = in_line(model, rows())
    torch.testing.assert_close(
        found, wanted, atol=5e-6, rtol=1e-6
    )  # logits of 4 to 6: an ulp or two of float32
    assert (found.log_softmax(dim=-1) - wanted.log_softmax(dim=-1)).abs().mean() < 1e-6
    for weight, gradient in gradients(model, found).items():
        torch.testing.assert_close(gradient, expected[weight], atol=1e-6, rtol=1e-4, msg=weight)
    if name == "mixtral":
        torch.testing.assert_close(ours.aux_loss, theirs.aux_loss)


@pytest.mark.parametrize("name", ["llama", "mistral, a window of 6", "gemma3, a window of 8"])
def test_a_row_sees_the_prompt_of_the_row_before(name: str) -> None:
    """Two answers, of 9 and 11 tokens, to a prompt of 8, and a plain row between two such pairs."""
    model, (prompt, good, bad, other) = model_of(name).eval(), rows((8, 9, 11, 7))
    alone, _ = padded(model, [torch.cat([prompt, good]), torch.cat([prompt, bad]), other])
    first, second, third = alone.split([17, 19, 7])
    ids = torch.cat([prompt, good, bad, other, prompt, good, bad])[None]
    places = [torch.arange(17), torch.arange(8, 19), torch.arange(7), torch.arange(17), torch.arange(8, 19)]
    with end_to_end(Rows((17, 11, 7, 17, 11), (0, 8, 0, 0, 8))):
        found = model(ids, torch.ones_like(ids), torch.cat(places)[None], use_cache=False).logits[0]
    wanted = torch.cat([first, second[8:], third, first, second[8:]])
    torch.testing.assert_close(found, wanted, atol=5e-6, rtol=1e-6)


def test_rows_that_mix_are_an_error() -> None:
    model = model_of("llama").eval()
    model.model.layers[1].self_attn.forward = lambda hidden_states, **_: (
        hidden_states,
        None,
    )  # asks for no rows
    with pytest.raises(RuntimeError, match=r"1 of 2 layers .* model.flash_attn=disabled"):
        in_line(model, rows())
    assert in_line(model, rows(), every_layer=False)[0].shape == (45, 97)


def test_other_masks_are_an_error() -> None:
    model = model_of("llama").eval()
    model.config.is_causal = False
    assert "causal" in str(unfit(model))
    with pytest.raises(RuntimeError, match="another than a causal one"):
        in_line(model, rows())


def test_all_else_is_as_before() -> None:
    """Generation, masks and caches of a model are Transformers' own."""
    model = model_of("llama").eval()
    prompts = torch.stack(rows((6, 6)))
    before = model.generate(prompts, max_new_tokens=5, do_sample=False)
    in_line(model, rows())
    assert torch.equal(model.generate(prompts, max_new_tokens=5, do_sample=False), before)


def test_what_does_not_fit_says_why() -> None:
    eager = model_of("llama")
    eager.set_attn_implementation("eager")
    assert unfit(eager) == "the attention is eager, not sdpa"
    bloom = AutoModelForCausalLM.from_config(BloomConfig(vocab_size=97, hidden_size=32, n_layer=1, n_head=2))
    bloom.config._attn_implementation = "sdpa"
    assert "bloom" in str(unfit(bloom))
    mixed = model_of("llama")
    mixed.config.layer_types = ["linear_attention", "full_attention"]
    assert "linear_attention" in str(unfit(mixed))
    depths = model_of("llama")
    depths.config.mixture_of_depths = 0.125
    assert "mixture_of_depths" in str(unfit(depths))
