"""Mixture of depths: which tokens a layer computes, what comes out, and what is saved."""

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from llmf_hydra.config.groups.model import ModelConfig
from llmf_hydra.errors import Refused
from llmf_hydra.models.architecture.mixture_of_depths import ROUTER, choose, take_router_loss
from llmf_hydra.models.load import load_config, load_model

IDS = torch.arange(64).reshape(2, 32) + 5


@pytest.fixture(autouse=True)
def _tiny(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMF_CACHE", str(cache))


def model(how: str | None, name: object = "builtin:tiny") -> ModelConfig:
    return ModelConfig(model_name_or_path=str(name), mixture_of_depths=how)


def converted(how: str = "convert", name: object = "builtin:tiny") -> LlamaForCausalLM:
    torch.manual_seed(1)
    return load_model(model(how, name), torch.float32)  # pyright: ignore


def test_the_largest_scores_of_the_real_tokens_are_chosen_in_training_and_those_above_0_else() -> None:
    scores = torch.tensor([[0.1, -3.0, 2.0, -1.0, 9.0], [-1.0, -2.0, -3.0, 4.0, 5.0]])
    real = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 0, 0]]).bool()
    assert choose(scores, real, 0.5).int().tolist() == [[1, 0, 1, 0, 0], [1, 1, 0, 0, 0]]
    assert choose(scores, real, 0.125).int().tolist() == [[0, 0, 1, 0, 0], [1, 0, 0, 0, 0]]
    assert choose(scores, real, None).int().tolist() == [[1, 0, 1, 0, 0], [0, 0, 0, 0, 0]]


@torch.no_grad()
def test_a_layer_adds_r_times_what_it_computes_of_the_chosen_tokens_alone() -> None:
    network, plain = converted().train(), load_model(model(None), torch.float32).train()
    seen: dict[str, torch.Tensor] = {}
    layer = network.model.layers[1]
    layer.register_forward_hook(lambda _, given, out: seen.update(before=given[0], after=out))
    network(IDS, use_cache=False)
    before, after = seen["before"], seen["after"]
    scores = getattr(layer, ROUTER)(before).squeeze(-1)
    for row in range(2):
        chosen = scores[row].topk(4).indices.sort().values  # an eighth of 32
        cos, sin = plain.model.rotary_emb(before, chosen[None])
        some = before[row, chosen][None]
        mask = torch.full((1, 1, 4, 4), -torch.inf).triu(1)
        dense = plain.model.layers[1](some, attention_mask=mask, position_embeddings=(cos, sin))
        wanted = before[row].clone()
        wanted[chosen] += scores[row, chosen, None] * (dense - some)[0]
        assert torch.allclose(after[row], wanted, atol=1e-6)


@torch.no_grad()
def test_where_nothing_is_trained_no_token_knows_what_follows_and_padding_changes_nothing() -> None:
    network = converted().eval()
    torch.nn.init.normal_(getattr(network.model.layers[1], ROUTER).weight)
    whole = network(IDS, use_cache=False).logits
    assert torch.allclose(network(IDS[:, :20], use_cache=False).logits, whole[:, :20], atol=1e-5)
    padded = torch.cat([IDS, torch.full((2, 7), 2)], dim=1)
    mask = torch.cat([torch.ones_like(IDS), torch.zeros(2, 7, dtype=torch.long)], dim=1)
    for mode in (True, False):
        alone = network.train(mode)(IDS, use_cache=False).logits
        assert torch.allclose(
            network(padded, attention_mask=mask, use_cache=False).logits[:, :32], alone, atol=1e-5
        )
    dense = load_model(model(None), torch.float32).eval()
    assert not torch.allclose(network.eval()(IDS, use_cache=False).logits, dense(IDS).logits, atol=1e-3)


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradients_reach_the_router_through_checkpoints_and_its_loss(reentrant: bool) -> None:
    found = []
    for checkpoints in (False, True):
        network = converted().train()
        if checkpoints:
            network.activation_checkpointing_enable({"use_reentrant": reentrant})
        loss = network(IDS, labels=IDS, use_cache=False).loss
        own = take_router_loss(network)
        assert own is not None and own.requires_grad and take_router_loss(converted()) is None
        (loss + own).backward()
        found.append({name: weight.grad for name, weight in network.named_parameters()})
    assert found[0][f"model.layers.1.{ROUTER}.weight"].abs().sum() > 0
    assert all(torch.allclose(found[0][name], found[1][name], atol=1e-6) for name in found[0])


@torch.no_grad()
def test_what_is_saved_is_loaded_again_and_generates(tmp_path: Path) -> None:
    network = converted().eval()
    torch.nn.init.normal_(getattr(network.model.layers[1], ROUTER).weight)
    network.save_pretrained(tmp_path)
    again = converted("load", tmp_path).eval()
    assert torch.equal(again(IDS, use_cache=False).logits, network(IDS, use_cache=False).logits)
    made = again.generate(IDS, attention_mask=torch.ones_like(IDS), max_new_tokens=5, do_sample=False)
    for at in range(32, made.shape[1]):
        assert torch.equal(made[:, at], again(made[:, :at], use_cache=False).logits[:, -1].argmax(-1))
    for how, message in ((None, "was converted"), ("convert", "is converted already")):
        with pytest.raises(Refused, match=message):
            load_config(model(how, tmp_path))
    with pytest.raises(Refused, match="was not converted"):
        load_config(model("load"))
    plain = tmp_path / "plain"
    LlamaForCausalLM(LlamaConfig(**network.config.to_dict())).save_pretrained(plain)
    with pytest.raises(Refused, match="holds no routers"):
        converted("load", plain)
