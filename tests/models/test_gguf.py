"""A GGUF file as the model: its weights are those of the model it was made from."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.adapter_runs import logits, merged
from support.stage_runs import SGD, Build, composed, steps

from llmf_hydra import refusals
from llmf_hydra.models import identity
from llmf_hydra.models.builtin import tiny
from llmf_hydra.models.load import load_model, load_tokenizer

gguf = pytest.importorskip("gguf")

LAYER = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
         "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
         "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
         }  # fmt: skip
HEADS = {"attn_q": 4, "attn_k": 2}


def as_gguf(file: Path, folder: Path) -> Path:
    """The tiny model in float32, as llama.cpp's converter writes it."""
    config, tokenizer = (
        json.loads((folder / name).read_text()) for name in ("config.json", "tokenizer.json")
    )
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    vocabulary = tokenizer["model"]["vocab"] | {
        token["content"]: token["id"] for token in tokenizer["added_tokens"]
    }
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in tiny.SPECIAL else 1 for token in tokens])
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_chat_template(tiny.CHATML)
    for name, weight in load_file(folder / "model.safetensors").items():
        writer.add_tensor(*_named(name, weight.float().numpy()))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _named(name: str, weight: np.ndarray) -> tuple[str, np.ndarray]:
    if name == "model.embed_tokens.weight":
        return "token_embd.weight", weight
    if name == "model.norm.weight":
        return "output_norm.weight", weight
    number, module = name.removeprefix("model.layers.").removesuffix(".weight").split(".", 1)
    kind = LAYER[module]
    if kind in HEADS:  # llama.cpp rotates neighbours, Transformers the halves
        rows, columns = weight.shape
        weight = (
            weight.reshape(HEADS[kind], 2, rows // HEADS[kind] // 2, columns)
            .swapaxes(1, 2)
            .reshape(rows, columns)
        )
    return f"blk.{number}.{kind}.weight", np.ascontiguousarray(weight)


@pytest.fixture
def file(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLMF_CACHE", str(cache))
    return as_gguf(tmp_path / "tiny.gguf", tiny.ready())


def test_a_gguf_file_is_the_model_it_was_made_from(
    file: Path, build: Build, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["stage=sft", *SGD]
    named = [*words, f"model.model_name_or_path={file}"]
    settings = composed(*named).model
    loaded, tokenizer = load_model(settings, torch.float32), load_tokenizer(settings)
    assert torch.equal(logits(loaded), logits(merged()))
    theirs = load_tokenizer(composed(*words).model)
    assert tokenizer.get_vocab() == theirs.get_vocab()
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (
        "<|im_start|>",
        "<|im_end|>",
        "<|im_end|>",
    )
    text = "Write a word.\nIt is the sea <|im_end|>"
    assert tokenizer(text)["input_ids"] == theirs(text)["input_ids"]
    assert "converting tiny.gguf to float32, once" in capsys.readouterr().out
    trainer = build(*named)
    assert steps(trainer)[0] == steps(build(*words))[0]
    assert "converting" not in capsys.readouterr().out
    base = trainer.model.peft_config["default"].base_model_name_or_path
    assert identity.same_model(base, str(file)) and not identity.same_model(str(tiny.ready()), str(file))


def test_what_is_no_model_in_gguf_is_refused(file: Path, tmp_path: Path) -> None:
    (tmp_path / "text.gguf").write_text("no weights")
    cases = {"text.gguf": "is no GGUF file", "none.gguf": "there is no such file"}
    for name, told in cases.items():
        cfg = composed("stage=sft", f"model.model_name_or_path={tmp_path / name}")
        assert told in "\n".join(map(str, refusals.of_files(cfg)))
    half = tmp_path / "half.gguf"
    half.write_bytes(file.read_bytes()[:3000])
    with pytest.raises(refusals.Refused, match=r"half\.gguf: cannot be read as a model"):
        load_tokenizer(composed("stage=sft", f"model.model_name_or_path={half}").model)
