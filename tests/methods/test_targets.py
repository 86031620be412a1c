"""Which modules take an adapter, as `method.lora_target` says it."""

import pytest
from support.small_models import llama
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from llmf_hydra.config.groups.method import MethodConfig
from llmf_hydra.errors import Refused
from llmf_hydra.methods import lora
from llmf_hydra.methods.modules import targets

LINEAR = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def model(kind: type[LlamaForCausalLM | LlamaForSequenceClassification] = LlamaForCausalLM, **more: object):
    return kind(LlamaConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=3, num_attention_heads=2,
                            num_key_value_heads=2, vocab_size=11, **more))  # fmt: skip


def adapted(target: str, of: object = None) -> set[str]:
    """Paths of the layers with an adapter."""
    whole = "embed_tokens,norm" if target == "q_proj,embed_tokens" else None
    given = MethodConfig(lora_target=target, additional_target=whole)
    applied = lora.apply(of or model(), given, pure=False)  # pyright: ignore
    names = [name.removeprefix("base_model.model.") for name, _ in applied.named_parameters()]
    return {name.partition(".lora_A")[0].partition(".lora_embedding_A")[0] for name in names
            if "lora_A" in name or "lora_embedding_A" in name}  # fmt: skip


def last(paths: set[str]) -> set[str]:
    return {path.rpartition(".")[2] for path in paths}


def test_all_is_every_linear_layer_but_the_head() -> None:
    assert last(adapted("all")) == LINEAR and len(adapted("all")) == 3 * len(LINEAR)
    assert "score" not in last(adapted("all", model(LlamaForSequenceClassification, num_labels=1)))


def test_names_and_ends_of_paths() -> None:
    assert adapted("q_proj, mlp.up_proj") == {
        f"model.layers.{n}.{name}" for n in range(3) for name in ("self_attn.q_proj", "mlp.up_proj")
    }
    assert adapted("layers.1.mlp.up_proj") == {"model.layers.1.mlp.up_proj"}
    assert adapted("embed_tokens,lm_head") == {"model.embed_tokens", "lm_head"}


def test_patterns_match_whole_paths_of_linear_layers() -> None:
    assert adapted(r".*layers\.[02]\..*(q|v)_proj") == {
        f"model.layers.{n}.self_attn.{name}" for n in (0, 2) for name in ("q_proj", "v_proj")
    }
    assert last(adapted(".*self_attn.*, up_proj")) == {"q_proj", "k_proj", "v_proj", "o_proj", "up_proj"}
    assert last(adapted(".*")) == LINEAR, "neither the head nor an embedding"


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("q_prj", "method.lora_target=q_prj: the model has no such module; did you mean 'q_proj'? its linear layers "
                  "are q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, lm_head"),
        ("proj", "lora_target=proj: the model has no such module"),
        (r".*layers\.9\..*", "the pattern matches no linear layer; a path is model.layers.0.self_attn.q_proj; its"),
        ("mlp", "model.layers.0.mlp is a LlamaMLP, which takes no adapter; name the layers in it: down_proj, "
                "gate_proj, up_proj"),
        ("norm", "model.norm is a LlamaRMSNorm, which takes no adapter; name some of q_proj"),
        ("q_proj,all", "lora_target=all: the model has no such module"),
        ("q_proj,embed_tokens", "lora_target=q_proj,embed_tokens: embed_tokens is trained whole, for "
                                "method.additional_target or new tokens, and takes no adapter"),
    ],
)  # fmt: skip
def test_what_matches_nothing_is_refused_with_the_names_there_are(target: str, said: str) -> None:
    with pytest.raises(Refused) as refused:
        adapted(target)
    assert said in str(refused.value)


def test_modules_of_a_spared_part_are_left_out() -> None:
    spared = ["model.layers.0", "model.layers.2"]
    assert targets(model(), "key", ["q_proj"], spared) == ["model.layers.1.self_attn.q_proj"]
    assert len(targets(model(), "key", ["all"], spared)) == len(LINEAR)


def test_a_rank_that_no_layer_can_have_is_refused_and_one_that_some_cannot_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = llama().float()  # k_proj and v_proj give 8 numbers, the shorter dimension of the others is 16
    with pytest.raises(
        Refused, match=r"method.lora_rank=17: is above the shorter dimension .*take 16 or less"
    ):
        lora.apply(model, MethodConfig(lora_rank=17), pure=False)
    with caplog.at_level("WARNING", "llmf_hydra"):
        lora.apply(model, MethodConfig(lora_rank=9), pure=False)
    assert "method.lora_rank=9 is above the shorter dimension, 8 or more, of 4 of the 14" in caplog.text
