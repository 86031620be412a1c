"""LoRA on tiny models of several architectures: trained, saved, and loaded by plain PEFT to the same logits."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from support.stage_runs import SGD, Build
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    Phi3Config,
    Qwen3Config,
)

from llmf_hydra.models.builtin import tiny

SHAPE = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
         "num_key_value_heads": 2, "vocab_size": 1024, "head_dim": 16, "bos_token_id": 1, "eos_token_id": 2,
         "pad_token_id": 2}  # fmt: skip
ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
GATED = ATTENTION | {"gate_proj", "up_proj", "down_proj"}
CASES: dict[str, tuple[Any, set[str]]] = {
    "llama": (LlamaConfig(**SHAPE), GATED),
    "qwen3": (Qwen3Config(**SHAPE), GATED),
    "gemma3": (Gemma3TextConfig(**SHAPE, sliding_window=32), GATED),
    "mistral": (MistralConfig(**SHAPE, sliding_window=32), GATED),
    "phi3": (Phi3Config(**SHAPE), {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}),
    "mixtral": (MixtralConfig(**SHAPE, num_local_experts=2), ATTENTION),  # its experts are no linear layers
}


@pytest.mark.parametrize("kind", CASES)
def test_an_adapter_is_trained_saved_and_loaded(
    kind: str, build: Build, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMF_CACHE", str(cache))
    config, adapted = CASES[kind]
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "base")
    AutoTokenizer.from_pretrained(tiny.ready()).save_pretrained(tmp_path / "base")
    trainer = build(
        "stage=sft", f"model.model_name_or_path={tmp_path / 'base'}", "model.compute_dtype=float32", *SGD
    )
    names = {
        name.partition(".lora_A")[0] for name, _ in trainer.model.named_parameters() if ".lora_A" in name
    }
    assert {name.rpartition(".")[2] for name in names} == adapted
    trainer.train()
    trainer.save_final()
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    ids = torch.arange(20, 40)[None]
    with torch.no_grad():
        before = base.eval()(input_ids=ids).logits
        plain = (
            PeftModel.from_pretrained(base, str(trainer.context.out / "final")).eval()(input_ids=ids).logits
        )
        ours = trainer.model.eval()(input_ids=ids).logits
    torch.testing.assert_close(plain, ours, atol=1e-5, rtol=1e-5)
    assert (plain - before).abs().max() > 1e-4, "nothing was learned"
