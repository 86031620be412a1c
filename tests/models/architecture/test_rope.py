"""RoPE scaling: its factor, its frequencies, and what a saved model says of it."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from llmf_hydra.config.groups.model import ModelConfig
from llmf_hydra.errors import Refused
from llmf_hydra.models.architecture.fits import rope_factor
from llmf_hydra.models.load import load_config, load_model

SHAPE = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
         "max_position_embeddings": 32}  # fmt: skip
IDS = torch.arange(60)[None] % 64


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama that takes 32 tokens by itself."""
    folder = tmp_path_factory.mktemp("short")
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**SHAPE)).save_pretrained(folder)
    return folder


def model(folder: Path, kind: str | None, length: int | None = 70) -> ModelConfig:
    return ModelConfig(model_name_or_path=str(folder), rope_scaling=kind, model_max_length=length)


def logits(network: torch.nn.Module, ids: torch.Tensor = IDS) -> torch.Tensor:
    with torch.no_grad():
        return network.eval()(ids, use_cache=False).logits


def test_each_kind_computes_its_own_and_is_saved(short: Path, tmp_path: Path) -> None:
    seen: dict[str | None, torch.Tensor] = {}
    for kind in (None, "linear", "dynamic", "yarn", "llama3"):
        network = load_model(model(short, kind), torch.float32)
        seen[kind] = logits(network)
        network.save_pretrained(tmp_path / str(kind))
        again = AutoModelForCausalLM.from_pretrained(tmp_path / str(kind))
        assert torch.equal(logits(again), seen[kind]), kind
        known = again.config.rope_parameters
        assert known["rope_type"] == (kind or "default")
        if kind is not None:  # 70 tokens need the own 32 three times
            assert known["factor"] == 3 and known["rope_theta"] == 10000
            assert again.config.max_position_embeddings == (32 if kind == "dynamic" else 96)
    for kind, one in seen.items():
        assert all(kind == other or not torch.allclose(one, two, atol=1e-4) for other, two in seen.items()), (
            kind
        )


def test_linear_divides_positions_by_the_factor(short: Path) -> None:
    frequencies = [
        load_model(model(short, kind), torch.float32).model.rotary_emb.inv_freq for kind in (None, "linear")
    ]
    assert torch.allclose(frequencies[0] / 3, frequencies[1])
    assert [rope_factor(length, 32) for length in (33, 64, 65)] == [2, 2, 3]


def test_dynamic_scales_by_the_input_at_hand_whatever_came_before(short: Path) -> None:
    network = load_model(model(short, "dynamic"), torch.float32)
    plain = load_model(model(short, None), torch.float32)
    first = logits(network, IDS[:, :40])
    logits(network)
    assert torch.equal(logits(network, IDS[:, :40]), first)
    assert not torch.allclose(first, logits(plain, IDS[:, :40]), atol=1e-4)
    assert torch.equal(logits(network, IDS[:, :20]), logits(plain, IDS[:, :20])), "within its own length"


def test_what_cannot_be_scaled_is_refused(short: Path, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="has no effect: the model takes 32 tokens by itself"):
        load_config(model(short, "linear", 32))
    load_config(model(short, "yarn")).save_pretrained(tmp_path / "scaled")
    with pytest.raises(Refused, match="would replace the scaling that the model was trained with"):
        load_config(model(tmp_path / "scaled", "linear", 500))
