"""What a run is called, and what its card and its last lines say of its settings."""

import pytest
from support.stage_runs import composed

from llmf_hydra.jobs.model_card import card
from llmf_hydra.jobs.summary import closing
from llmf_hydra.runs.opening import opening


@pytest.mark.parametrize(
    ("words", "label"),
    [
        (["method=lora"], "lora"),
        (["method=pissa"], "lora (pissa)"),
        (["method=loraplus"], "lora (loraplus)"),
        (["method=qlora"], "lora (qlora)"),
        (["method=dora", "quantization=bnb8"], "lora (qlora, dora)"),
        (["method=llama_pro"], "freeze (llama_pro)"),
        (["method=full"], "full"),
    ],
)
def test_a_preset_is_named(words: list[str], label: str, tmp_path) -> None:
    cfg = composed("stage=sft", *words)
    assert f"sft, {label} of builtin:tiny" in opening(cfg, tmp_path)
    assert f"- Method: {label}, " in card(cfg, 3, [], chats=True)


def test_the_card_names_optimizer_and_what_was_changed() -> None:
    words = ["method=full", "optimizer=galore", "optimizer.galore_rank=4", "optimizer.weight_decay=0.1"]
    text = card(composed("stage=sft", *words), 3, [], chats=True)
    for line in ("| `optimizer.name` | galore |", "| `optimizer.galore_rank` | 4 |",
                 "| `optimizer.galore_update_interval` | 200 |", "| `optimizer.weight_decay` | 0.1 |"):  # fmt: skip
        assert line in text
    assert "apollo" not in text and "badam" not in text
    tokens = ["model.new_special_tokens='<a>'", "model.resize_vocab=true"]
    text = card(composed("stage=sft", *tokens), 3, [], chats=True)
    assert "| `model.new_special_tokens` | <a> |" in text and "| `model.resize_vocab` |" in text


def test_training_on_keeps_the_optimizer_and_the_layers(tmp_path) -> None:
    words = ["method=freeze", "method.freeze_trainable_layers=1", "optimizer=galore", "optimizer.galore_rank=4",
             "optimizer.galore_layerwise=true", "training.max_grad_norm=0"]  # fmt: skip
    line = next(
        line
        for line in closing(composed("stage=sft", *words), tmp_path, ["llmf"], [])
        if "train it on" in line
    )
    for word in words[1:]:
        assert word in line or (word.endswith("=0") and f"{word}.0" in line), word
    adapter = composed("stage=sft", "method=loraplus", "method.lora_rank=4")
    line = next(line for line in closing(adapter, tmp_path, ["llmf"], []) if "train it on" in line)
    assert "method.loraplus_lr_ratio=16.0" in line and "lora_rank" not in line  # which the saved adapter says
