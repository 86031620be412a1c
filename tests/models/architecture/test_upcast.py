"""Norms and head in float32 within a model of half precision."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from llmf_hydra.config.groups.model import ModelConfig
from llmf_hydra.models.load import load_model
from llmf_hydra.training.token_logprobs import install_head, next_tokens, token_log_probs

IDS = torch.arange(40)[None] * 7


@pytest.fixture(autouse=True)
def _tiny(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMF_CACHE", str(cache))


def loaded(**switches: bool) -> torch.nn.Module:
    """Its norms are no longer all ones, or nothing could be rounded."""
    network = load_model(ModelConfig(model_name_or_path="builtin:tiny", **switches), torch.bfloat16).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if "norm" in name:
                weight.copy_(1 + torch.rand(weight.shape))
    return network


@torch.no_grad()
def test_the_head_computes_in_float32_where_logits_are_read_and_where_log_probabilities_are() -> None:
    plain, upcast = loaded(), loaded(upcast_lmhead_output=True)
    hidden = plain.model(IDS).last_hidden_state
    exact = F.linear(hidden.float(), plain.lm_head.weight.float())
    assert plain(IDS).logits.dtype == torch.bfloat16 and torch.equal(upcast(IDS).logits, exact)
    targets = next_tokens(IDS)
    wanted = exact[:, :-1].log_softmax(-1).gather(2, IDS[:, 1:, None])[..., 0]
    for network, near in ((plain, False), (upcast, True)):
        install_head(network)
        seen = token_log_probs(network, {"input_ids": IDS}, targets).log_probs[:, :-1]
        assert torch.allclose(seen, wanted, atol=1e-5) == near


@torch.no_grad()
def test_norms_hold_float32_and_what_follows_them_does_not() -> None:
    plain, upcast = loaded(), loaded(upcast_layernorm=True)
    types = {name: weight.dtype for name, weight in upcast.named_parameters()}
    assert {kind for name, kind in types.items() if "norm" in name} == {torch.float32}
    assert {kind for name, kind in types.items() if "norm" not in name} == {torch.bfloat16}
    ones, twos = plain(IDS).logits, upcast(IDS).logits
    assert ones.dtype == twos.dtype == torch.bfloat16
    assert not torch.equal(ones, twos) and torch.allclose(ones.float(), twos.float(), atol=0.1)
