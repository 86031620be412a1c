"""New special tokens: seen by the data, given rows of their own, trained, saved and found again."""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from support.adapter_runs import logits
from support.stage_runs import SGD, Build, composed
from transformers import AutoModelForCausalLM, AutoTokenizer

from llmf_hydra.errors import Refused
from llmf_hydra.models.builtin import tiny
from llmf_hydra.models.load import load_model, load_tokenizer

NEW = ["model.new_special_tokens='<tool>,<end_tool>'", "model.resize_vocab=true"]
IDS = torch.tensor([[20, 1024, 30, 1025, 40]])  # the new tokens among others


@pytest.fixture
def rows(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("LLMF_CACHE", str(cache))
    line = {"instruction": "Say it.", "output": "Now <tool> sea <end_tool> it is."}
    (tmp_path / "rows.jsonl").write_text("\n".join([json.dumps(line)] * 8))
    return f"data.dataset={tmp_path / 'rows.jsonl'}"


def at(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


@pytest.fixture
def untied(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny model with an output head of its own."""
    monkeypatch.setenv("LLMF_CACHE", str(cache))
    folder = tmp_path / "untied"
    shutil.copytree(tiny.ready(), folder)
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].flip(0).contiguous()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    known = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**known, "tie_word_embeddings": False}))
    return folder


def test_new_rows_start_as_the_mean_of_the_old(rows: str, untied: Path) -> None:
    for name in (str(tiny.ready()), str(untied)):
        model = composed("stage=sft", f"model.model_name_or_path={name}", *NEW).model
        loaded = load_model(model, torch.float32)
        old = AutoModelForCausalLM.from_pretrained(name)
        for ours, theirs in zip(
            (loaded.get_input_embeddings(), loaded.get_output_embeddings()),
            (old.get_input_embeddings(), old.get_output_embeddings()),
            strict=True,
        ):
            assert ours.weight.shape == (1026, 64) and torch.equal(ours.weight[:1024], theirs.weight)
            mean = theirs.weight.mean(dim=0)
            assert torch.allclose(ours.weight[1024], mean) and torch.allclose(ours.weight[1025], mean)
        assert torch.equal(logits(loaded)[..., :1024], logits(old)), "the old tokens are as likely as before"


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("method", ["lora", "freeze", "full"])
def test_new_tokens_are_trained_saved_and_found_again(
    method: str, tied: bool, rows: str, untied: Path, build: Build, tmp_path: Path
) -> None:
    base = tiny.ready() if tied else untied
    trainer = build("stage=sft", *SGD, f"method={method}", f"model.model_name_or_path={base}", rows, *NEW,
                    "data.max_samples=8", "training.learning_rate=0.5")  # fmt: skip
    before = trainer.model.get_input_embeddings().weight.detach().clone()
    ids = trainer.train_dataset[0]["input_ids"]
    assert ids.count(1024) == ids.count(1025) == 1
    trainer.train()
    after = trainer.model.get_input_embeddings().weight
    assert not torch.equal(before[1024], after[1024]) and not torch.equal(before[1025], after[1025])
    trainer.save_model(str(tmp_path / "saved"))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert tokenizer("a <tool>")["input_ids"][-1] == 1024 and "<tool>" in tokenizer.all_special_tokens
    if method == "lora":
        whole = AutoModelForCausalLM.from_pretrained(base)
        whole.resize_token_embeddings(len(tokenizer))
        found = PeftModel.from_pretrained(whole, tmp_path / "saved")
        assert torch.equal(at(found), at(trainer.model))
        one = found.merge_and_unload()
        one.save_pretrained(tmp_path / "one")
        assert torch.allclose(at(one), at(trainer.model), atol=1e-5)
        found = AutoModelForCausalLM.from_pretrained(tmp_path / "one")
        assert torch.allclose(at(found), at(trainer.model), atol=1e-5), "tied embeddings stay one"
    else:
        assert torch.equal(at(AutoModelForCausalLM.from_pretrained(tmp_path / "saved")), at(trainer.model))


def test_a_saved_adapter_with_new_tokens_is_trained_on(rows: str, build: Build, tmp_path: Path) -> None:
    words = ["stage=dpo", *SGD, *NEW]
    trainer = build(*words)
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    again = build(*words, f"model.adapter_name_or_path={tmp_path / 'saved'}")
    assert torch.equal(at(again.model), at(trainer.model))
    four = build("stage=sft", *SGD, *NEW, "quantization=bnb4") if find_spec("bitsandbytes") else again
    assert four.model.get_input_embeddings().weight.shape[0] == 1026


def test_the_reference_and_the_estimate_know_the_new_rows(rows: str, build: Build) -> None:
    from llmf_hydra.jobs import assemble

    trainer = build("stage=dpo", *SGD, *NEW, "method=full")
    assert trainer.reference.own.config.vocab_size == 1026
    plain, more = (assemble.load_inputs(composed("stage=dpo", *SGD, *words)).estimate for words in ([], NEW))
    assert more.parameters - plain.parameters == 2 * 64
    assert more.trained - plain.trained == 1026 * 64, "the embeddings are trained with them"


def test_the_data_sees_the_tokens(rows: str) -> None:
    from llmf_hydra.jobs import assemble

    words = ["stage=sft", *SGD, rows, "data.max_samples=8"]
    plain, more = (assemble.load_inputs(composed(*words, *extra)).rows for extra in ([], NEW))
    assert plain.report.digest != more.report.digest
    assert len(more.train[0]["input_ids"]) < len(plain.train[0]["input_ids"])
    split = assemble.load_inputs(composed(*words, *NEW, "model.split_special_tokens=true")).rows
    assert 1024 not in split.train[0]["input_ids"] and 1024 in more.train[0]["input_ids"]


def test_tokens_that_do_not_fit_are_refused(rows: str) -> None:
    from llmf_hydra.jobs import assemble

    cases = {
        (
            "model.new_special_tokens='<tool>'",
        ): "makes 1025 tokens, and the embeddings have 1024 rows; set model.resize_vo",
        ("model.resize_vocab=true",): "has no effect: the 1024 tokens have their rows among the 1024",
        (
            "model.new_special_tokens='<|im_end|>'",
            "model.resize_vocab=true",
        ): "is a special token of the model already",
    }
    for words, told in cases.items():
        with pytest.raises(Refused) as refused:
            assemble.load_inputs(composed("stage=sft", *SGD, *words))
        assert told in str(refused.value), words


def test_a_slow_tokenizer_is_taken_where_there_is_one(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMF_CACHE", str(cache))
    cfg = composed("stage=sft", "model.use_fast_tokenizer=false")
    with pytest.raises(Refused, match=r"use_fast_tokenizer=false: the model has a fast tokenizer alone"):
        load_tokenizer(cfg.model)
    sentencepiece = pytest.importorskip("sentencepiece", reason="needs sentencepiece")
    folder = tmp_path / "pieces"
    shutil.copytree(tiny.ready(), folder)
    (tmp_path / "text.txt").write_text("the sea is wide\nand the land is far\n" * 50)
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "text.txt"), model_prefix=str(folder / "tokenizer"), vocab_size=20, minloglevel=2,
        user_defined_symbols=tiny.SPECIAL,
    )  # fmt: skip
    cfg.model.model_name_or_path = str(folder)
    slow = load_tokenizer(cfg.model)
    cfg.model.use_fast_tokenizer = True
    fast = load_tokenizer(cfg.model)
    assert fast.is_fast and not slow.is_fast
    assert slow.eos_token == fast.eos_token and slow.chat_template == fast.chat_template
    assert (
        slow.decode(slow("the sea is far", add_special_tokens=False)["input_ids"]).strip() == "the sea is far"
    )
