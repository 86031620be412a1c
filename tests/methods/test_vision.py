"""Models that see: what full, freeze, lora and oft train of tiny ones, built here."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.command_line import Cli
from transformers import (
    AutoModelForImageTextToText,
    CLIPVisionConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    PreTrainedModel,
    Qwen2VLConfig,
)

from llmf_hydra.config.groups.method import MethodConfig
from llmf_hydra.errors import Refused
from llmf_hydra.methods.protocol import load_method

TEXT = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 2, "vocab_size": 64, "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
TOWER, PROJECTOR, LANGUAGE, HEAD = "tower", "projector", "language", "head"
ALL = {TOWER, PROJECTOR, LANGUAGE, HEAD}


def llava(**text: object) -> PreTrainedModel:
    """Two layers of Llama below two of CLIP, which are lists of equal length."""
    sight = CLIPVisionConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
                             image_size=16, patch_size=8, projection_dim=16)  # fmt: skip
    config = LlavaConfig(
        vision_config=sight, text_config=LlamaConfig(**{**TEXT, **text}), image_token_index=63
    )
    return AutoModelForImageTextToText.from_config(config)


def qwen() -> PreTrainedModel:
    """Its projector, the merger, lies in the tower."""
    sight = {"depth": 1, "embed_dim": 16, "hidden_size": 16, "num_heads": 2, "patch_size": 4}
    text = {**TEXT, "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}}
    return AutoModelForImageTextToText.from_config(Qwen2VLConfig(vision_config=sight, text_config=text))


def part(name: str) -> str:
    if "multi_modal_projector" in name or "merger" in name:
        return PROJECTOR
    if "vision_tower" in name or "visual" in name:
        return TOWER
    return HEAD if "lm_head" in name else LANGUAGE


def trained(model: PreTrainedModel, method: str, **given: Any) -> set[str]:
    """The parts of which some weight is trained."""
    applied = load_method(method).apply(model, MethodConfig(name=method, **given), pure=False)
    return {part(name) for name, weight in applied.named_parameters() if weight.requires_grad}


SWITCHES: list[tuple[dict[str, object], dict[str, set[str]]]] = [
    ({}, {"full": {LANGUAGE, HEAD}, "freeze": {LANGUAGE}, "lora": {LANGUAGE}}),
    ({"freeze_vision_tower": False},
     {"full": {TOWER, LANGUAGE, HEAD}, "freeze": {TOWER, LANGUAGE}, "lora": {TOWER, LANGUAGE}}),
    ({"freeze_multi_modal_projector": False},
     {"full": {PROJECTOR, LANGUAGE, HEAD}, "freeze": {PROJECTOR, LANGUAGE}, "lora": {PROJECTOR, LANGUAGE}}),
    ({"freeze_vision_tower": False, "freeze_multi_modal_projector": False},
     {"full": ALL, "freeze": {TOWER, PROJECTOR, LANGUAGE}, "lora": {TOWER, PROJECTOR, LANGUAGE}}),
    ({"train_mm_proj_only": True}, {"full": {PROJECTOR}}),
]  # fmt: skip


@pytest.mark.parametrize("build", [llava, qwen])
@pytest.mark.parametrize(
    ("given", "expected"), SWITCHES, ids=lambda value: "" if "full" in value else str(value)
)
def test_the_switches_say_what_is_trained(
    build: Any, given: dict[str, Any], expected: dict[str, set[str]]
) -> None:
    for method, parts in expected.items():
        assert trained(build(), method, **given) == parts, method


def test_names_of_targets_don_t_reach_into_a_frozen_tower() -> None:
    """CLIP's layers have a q_proj too; OFT keeps out of it as LoRA does."""
    assert trained(llava(), "lora", lora_target="q_proj") == {LANGUAGE}
    assert trained(llava(), "lora", lora_target="q_proj", freeze_vision_tower=False) == {TOWER, LANGUAGE}
    assert trained(llava(), "oft", oft_target="q_proj", oft_block_size=4) == {LANGUAGE}


def test_a_step_on_an_image_moves_what_is_trained() -> None:
    """The gradient of an image's tokens reaches the projector, and no frozen weight."""
    model: Any = load_method("full").apply(
        llava(), MethodConfig(name="full", train_mm_proj_only=True), pure=False
    )
    ids = torch.tensor([[1, 63, 63, 63, 63, 5, 6, 7]])
    model(input_ids=ids, pixel_values=torch.rand(1, 3, 16, 16), labels=ids).loss.backward()
    moved = {part(name) for name, weight in model.named_parameters() if weight.grad is not None}
    assert moved == {PROJECTOR} and model.model.multi_modal_projector.linear_1.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("method", ["full", "freeze", "lora", "oft"])
@pytest.mark.parametrize("switch", ["freeze_vision_tower", "freeze_multi_modal_projector"])
def test_a_switch_on_a_model_of_text_is_refused(method: str, switch: str) -> None:
    with pytest.raises(
        Refused, match=rf"method.{switch}=false: has no effect: LlamaForCausalLM reads text alone"
    ):
        trained(LlamaForCausalLM(LlamaConfig(**TEXT)), method, **{switch: False})


def test_from_the_command_line(
    cli: Cli, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of text train the language model; what only images could train is refused."""
    from peft import PeftModel
    from transformers import AutoTokenizer

    from llmf_hydra.models.builtin import tiny

    monkeypatch.setenv("LLMF_CACHE", str(cache))
    tokenizer = AutoTokenizer.from_pretrained(tiny.ready())
    llava(vocab_size=1024, eos_token_id=2, pad_token_id=2).save_pretrained(tmp_path / "llava")
    tokenizer.save_pretrained(tmp_path / "llava")
    words = ["stage=sft", "model.model_name_or_path=./llava", "training.max_steps=2", "training.eval_strategy=no",
             "data.val_size=0", "data.max_samples=8", "training.plot_loss=false", "data.cutoff_len=64"]  # fmt: skip
    done = cli(*words, "hydra.run.dir=out")
    assert done.returncode == 0, done.stderr
    base = AutoModelForImageTextToText.from_pretrained(tmp_path / "llava")
    adapted = PeftModel.from_pretrained(base, str(tmp_path / "out" / "final"))
    assert {part(name) for name, _ in adapted.named_parameters() if "lora_" in name} == {LANGUAGE}
    for switch in ("freeze_vision_tower=false", "train_mm_proj_only=true"):
        refused = cli(*words, "method=full", f"method.{switch}")
        assert refused.returncode == 2, refused.stderr
        assert f"method.{switch}: has no effect: the rows hold no images" in refused.stderr
