"""`method=freeze`: which weights are trained."""

import pytest
from support.job_runs import refused
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedModel

from llmf_hydra.config.groups.method import MethodConfig
from llmf_hydra.errors import Refused
from llmf_hydra.methods import freeze


def model(kind: type[PreTrainedModel] = LlamaForCausalLM, **more: object) -> PreTrainedModel:
    return kind(LlamaConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=4, num_attention_heads=2,
                            num_key_value_heads=2, vocab_size=11, **more))  # fmt: skip


def trained(of: PreTrainedModel, **given: object) -> set[str]:
    applied = freeze.apply(of, MethodConfig(name="freeze", **given), pure=False)  # pyright: ignore
    return {
        name.removesuffix(".weight") for name, weight in applied.named_parameters() if weight.requires_grad
    }


def layers_of(names: set[str]) -> set[int]:
    return {int(name.split(".")[2]) for name in names if name.startswith("model.layers.")}


@pytest.mark.parametrize(
    ("count", "layers"), [(2, {2, 3}), (1, {3}), (-1, {0}), (-3, {0, 1, 2}), (4, {0, 1, 2, 3})]
)
def test_a_number_counts_from_the_end_or_from_the_start(count: int, layers: set[int]) -> None:
    names = trained(model(), freeze_trainable_layers=count)
    assert layers_of(names) == layers and all(name.startswith("model.layers.") for name in names)
    assert len(names) == 9 * len(layers)


def test_modules_of_the_layers() -> None:
    assert trained(model(), freeze_trainable_layers=1, freeze_trainable_modules="mlp, self_attn.q_proj") == {
        "model.layers.3.mlp.gate_proj",
        "model.layers.3.mlp.up_proj",
        "model.layers.3.mlp.down_proj",
        "model.layers.3.self_attn.q_proj",
    }


def test_modules_outside_the_layers() -> None:
    names = trained(model(), freeze_trainable_layers=0, freeze_extra_modules="embed_tokens,norm")
    assert names == {"model.embed_tokens", "model.norm"}


def test_a_head_of_scores_is_always_trained() -> None:
    names = trained(model(LlamaForSequenceClassification, num_labels=1), freeze_trainable_layers=1)
    assert "score" in names and layers_of(names) == {3}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"freeze_trainable_layers": 5}, "method.freeze_trainable_layers=5: the model has 4 layers"),
        ({"freeze_trainable_layers": -5}, "the model has 4 layers"),
        ({"freeze_trainable_modules": "self_atn"}, "freeze_trainable_modules=self_atn: the model has no such module; "
                                                   "did you mean 'self_attn'?"),
        ({"freeze_extra_modules": "embed_token"}, "did you mean 'embed_tokens'?"),
        ({"freeze_extra_modules": "mlp"}, "freeze_extra_modules=mlp: the model has no such module"),
    ],
)  # fmt: skip
def test_wrong_names_are_refused_with_the_nearest(given: dict[str, object], said: str) -> None:
    with pytest.raises(Refused) as found:
        trained(model(), **given)
    assert said in str(found.value)


def test_layers_are_counted_before_anything_is_loaded() -> None:
    words = ["stage=sft", "method=freeze"]
    assert refused(*words, "method.freeze_trainable_layers=-3") == [
        "method.freeze_trainable_layers=-3: the model has 2 layers"
    ]
    assert not refused(*words, "method.freeze_trainable_layers=-2")
    blocks = ["optimizer=badam", "method.freeze_trainable_layers=1"]
    (said,) = refused(*words, *blocks, "optimizer.badam_start_block=1")
    assert "optimizer.badam_start_block=1: there are 1 blocks, the first of which is 0" in said
    assert not refused("stage=sft", "method=full", "optimizer=badam", "optimizer.badam_start_block=1")
