"""LoRA on tiny models of several architectures: trained, saved, and loaded by plain PEFT to the same logits."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from support.command_line import Cli
from support.stage_runs import SGD, Build
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
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


SHORT = ["stage=sft", "training.max_steps=1", "data.max_samples=16", "data.val_size=0", "training.eval_strategy=no",
         "training.plot_loss=false"]  # fmt: skip


def test_gpt2_is_trained_and_what_its_layers_cannot_have_is_refused(cli: Cli, tmp_path: Path) -> None:
    GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=1024)).save_pretrained(
        tmp_path / "gpt2"
    )
    AutoTokenizer.from_pretrained(tiny.ready()).save_pretrained(tmp_path / "gpt2")
    words = [*SHORT, "model.model_name_or_path=gpt2"]
    done = cli(*words, "hydra.run.dir=run")
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert any(
        "c_attn.lora_B" in name for name in load_file(tmp_path / "run/final/adapter_model.safetensors")
    )
    refused = cli(*words, "method=oft")
    assert (
        refused.returncode == 2 and "h.0.attn.c_attn is a Conv1D, which OFT doesn't rotate" in refused.stderr
    )
    done = cli(*words, "method=full", "optimizer=muon")
    assert done.returncode == 0 and not done.stderr, done.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["model.new_special_tokens='<a>'", "model.resize_vocab=true"], None),
        (["method.lora_target='embed_tokens,q_proj'"], "method.lora_target changes one of the embeddings and the"),
        (["method=oft", "method.additional_target=lm_head"], "method.additional_target changes one of the"),
    ],
    ids=["new tokens", "an adapter on embeddings", "oft and the head"],
)  # fmt: skip
def test_what_embeddings_and_head_share_is_said_in_one_sentence(
    words: list[str], told: str | None, cli: Cli
) -> None:
    done = cli(*SHORT, "model=tiny", *words, "hydra.run.dir=run")
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert done.stdout.count("share their weight") == (told is not None) and (told or "") in done.stdout


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
