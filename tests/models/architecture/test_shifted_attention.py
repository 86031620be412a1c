"""S2-Attn against the paper's own steps: shift half of the heads, cut into groups, attend, shift back."""

from types import SimpleNamespace

import pytest
import torch

from llmf_hydra.config.groups.model import ModelConfig
from llmf_hydra.errors import Refused
from llmf_hydra.models.architecture.shifted_attention import shifted_attention
from llmf_hydra.models.load import load_model

HEADS, SIZE = 4, 8


def by_the_paper(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """LongLoRA's algorithm 1 on (1, heads, n, size), with the mask that keeps the last, wrapped group from leaking."""
    n = query.shape[2]
    group = n // 4

    def shift(states: torch.Tensor, by: int) -> torch.Tensor:
        straight, shifted = states.chunk(2, dim=1)
        return torch.cat([straight, shifted.roll(by, dims=2)], dim=1)

    place = shift(torch.arange(n).expand(1, HEADS, n)[..., None], -(group // 2))[..., 0]
    moved = [shift(states, -(group // 2)) for states in (query, key, value)]
    q, k, v = (states.reshape(1, HEADS, 4, group, SIZE) for states in moved)
    at = place.reshape(1, HEADS, 4, group)
    order = torch.arange(group)
    # No token sees a later one, and none of the sequence's end sees its beginning, which stands after it.
    sees = (order[:, None] >= order[None]) & (at[..., :, None] >= at[..., None, :])
    scores = (q @ k.transpose(-1, -2) / SIZE**0.5).masked_fill(~sees, -torch.inf)
    return shift((scores.softmax(-1) @ v).reshape(1, HEADS, n, SIZE), group // 2)


def test_it_is_the_papers() -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, HEADS, 32, SIZE, dtype=torch.float64) for _ in range(3))
    module = SimpleNamespace(training=True)
    ours, _ = shifted_attention(module, query, key, value, None, scaling=SIZE**-0.5)
    assert torch.allclose(ours.transpose(1, 2), by_the_paper(query, key, value), atol=1e-12)
    # Of another length: filled up on the right, which changes nothing of what stands before.
    cut, _ = shifted_attention(
        module, *(each[:, :, :29] for each in (query, key, value)), None, scaling=SIZE**-0.5
    )
    assert torch.allclose(cut, ours[:, :29], atol=1e-12)


def test_training_alone_attends_so_and_groups_learn(cache: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMF_CACHE", str(cache))
    ids = torch.arange(64)[None]
    shifted = load_model(ModelConfig(model_name_or_path="builtin:tiny", shift_attn=True), torch.float32)
    plain = load_model(ModelConfig(model_name_or_path="builtin:tiny"), torch.float32)
    with torch.no_grad():
        assert torch.equal(shifted.eval()(ids).logits, plain.eval()(ids).logits)
        assert not torch.allclose(shifted.train()(ids).logits, plain.train()(ids).logits, atol=1e-3)
    shifted(ids, labels=ids).loss.backward()
    assert shifted.model.layers[0].self_attn.k_proj.weight.grad.abs().sum() > 0


def test_other_models_are_refused(tmp_path: object) -> None:
    from transformers import GPT2Config

    GPT2Config(n_layer=1, n_embd=8, n_head=2).save_pretrained(str(tmp_path))
    with pytest.raises(Refused, match="is built for llama models, and this is a gpt2 model"):
        load_model(ModelConfig(model_name_or_path=str(tmp_path), shift_attn=True), torch.float32)
