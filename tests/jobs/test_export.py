"""`job=export` writes what the adapter on its base computes, loads in plain Transformers, and overwrites nothing."""

import json
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
import yaml
from peft import LoraConfig, OFTConfig, PeftModel, get_peft_model
from support.adapter_runs import logits, merged, save
from support.command_line import Cli
from support.finished_runs import Finished
from support.hub_server import TOKEN, serving
from support.job_runs import refused, run_job
from support.parameter_runs import work
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GenerationConfig,
)

from llmf_hydra.config import compose
from llmf_hydra.config.groups.data import DataConfig
from llmf_hydra.config.groups.export import ExportConfig
from llmf_hydra.config.groups.model import ModelConfig
from llmf_hydra.errors import Refused
from llmf_hydra.export import files, merge
from llmf_hydra.export.quantize import calibration
from llmf_hydra.jobs import assemble
from llmf_hydra.models.builtin import tiny
from llmf_hydra.models.value_head import FILE as VALUE_HEAD
from llmf_hydra.runs import folder as runs

FULL = "model.infer_dtype=float32"
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")


@pytest.fixture(autouse=True)
def _cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMF_CACHE", str(cache))


def export(folder: Path, *words: str, name: str = "exported") -> Path:
    """The folder of an export, made in this process."""
    run_job(folder / f"run-{name}", "job=export", f"export.export_dir={folder / name}", *words)
    return folder / name


def loaded(folder: Path, **settings: Any) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, **settings)


def adapted(*adapters: Path) -> torch.Tensor:
    """Logits of adapters on the tiny model, by PEFT alone."""
    model: Any = AutoModelForCausalLM.from_pretrained(tiny.ready())
    for adapter in adapters[:-1]:
        model = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    return logits(PeftModel.from_pretrained(model, str(adapters[-1])))


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.allclose(one, other, rtol=0, atol=1e-4)


def test_the_merged_model_is_the_adapter_on_its_base(tmp_path: Path) -> None:
    base = tiny.ready()
    first, second = save(tmp_path / "first", base, 1), save(tmp_path / "second", base, 2)
    out = export(tmp_path, f"model.adapter_name_or_path={first}", FULL)
    assert same(logits(loaded(out)), adapted(first)) and not same(logits(loaded(out)), logits(merged()))
    both = export(tmp_path, f"model.adapter_name_or_path='{first},{second}'", FULL, name="both")
    assert same(logits(loaded(both)), adapted(first, second))
    for name in TOKENIZER:  # converters know a tokenizer by its bytes
        assert (out / name).read_bytes() == (base / name).read_bytes()
    assert loaded(out).config.use_cache and GenerationConfig.from_pretrained(out).eos_token_id == 2
    chat = AutoTokenizer.from_pretrained(out).apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert chat == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    written = (out / "Modelfile").read_text()
    assert (
        "FROM .\n" in written and "<|im_start|>user\n{{ .Content }}" in written and "num_ctx 2048" in written
    )
    record = json.loads((out / "export.json").read_text())
    assert (
        record["adapters"] == ["/".join(first.parts[-3:])]
        and record["dtype"] == "float32"
        and record["device"] == "cpu"
    )
    assert set(record["files"]) == {file.name for file in out.iterdir()} - {"export.json", "README.md"}
    assert {oct(file.stat().st_mode & 0o777) for file in out.iterdir()} == {"0o644"}


def test_adapters_of_other_kinds_and_on_tied_weights(tmp_path: Path) -> None:
    base = tiny.ready()
    kinds = {
        "dora": LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", init_lora_weights=False, use_dora=True),
        "oft": OFTConfig(task_type="CAUSAL_LM", oft_block_size=8, target_modules="all-linear", init_weights=False),
        "embeddings": LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj", "embed_tokens"],
                                 init_lora_weights=False),
        "rows": LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], modules_to_save=["embed_tokens"],
                           init_lora_weights=False),
    }  # fmt: skip
    for name, config in kinds.items():
        torch.manual_seed(3)
        model: Any = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
        if name == "rows":
            for key, weight in model.named_parameters():
                if "modules_to_save" in key:
                    weight.data.mul_(1.5)
        model.save_pretrained(tmp_path / f"adapter-{name}")
        words = [f"model.adapter_name_or_path={tmp_path / f'adapter-{name}'}", FULL]
        out = export(tmp_path, *words, name=name)
        assert same(logits(loaded(out)), adapted(tmp_path / f"adapter-{name}")), name


def test_type_shards_and_the_older_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = save(tmp_path / "adapter", tiny.ready(), 1)
    given = f"model.adapter_name_or_path={adapter}"
    kept = export(tmp_path, given, name="kept")
    assert loaded(kept, dtype="auto").dtype == torch.float32, "that of the base"
    half = export(tmp_path, given, "model.infer_dtype=bfloat16", name="half")
    assert loaded(half, dtype="auto").dtype == torch.bfloat16
    exact = merged(adapter).to(torch.bfloat16).state_dict()
    assert all(
        torch.equal(weight, exact[name]) for name, weight in loaded(half, dtype="auto").state_dict().items()
    )
    sizes: list[str] = []
    write = files.write_weights

    def smaller(model: Any, folder: Path, shard_size: str, *, legacy: bool) -> None:
        sizes.append(shard_size)
        write(model, folder, "200KB", legacy=legacy)

    monkeypatch.setattr(files, "write_weights", smaller)
    whole = logits(merged(adapter))
    for legacy, ending in ((False, ".safetensors"), (True, ".bin")):
        words = ["export.export_legacy_format=true"] if legacy else ["export.export_size=3"]
        out = export(tmp_path, given, *words, name=f"shards{ending}")
        shards = [file for file in out.iterdir() if file.suffix == ending]
        assert len(shards) > 1 and {file.suffix for file in out.iterdir()} & {".bin", ".safetensors"} == {
            ending
        }
        assert same(logits(loaded(out)), whole)
    assert sizes == ["3GB", "5GB"]


def test_a_device_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """export.export_device=auto merges on the GPUs where there are any."""
    model = ModelConfig(model_name_or_path="builtin:tiny")
    for has_gpu, device, wanted in ((True, "auto", "auto"), (True, "cpu", None), (False, "auto", None)):
        monkeypatch.setattr(torch.cuda, "is_available", lambda given=has_gpu: given)
        assert merge.placed(model, device).device_map == wanted


def test_named_template_system_message_and_new_tokens(tmp_path: Path) -> None:
    out = export(tmp_path, "data.template=llama3", "generation.default_system='Be kind.'")
    told = AutoTokenizer.from_pretrained(out).apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False
    )
    assert "<|start_header_id|>user" in told
    assert json.loads((out / "tokenizer_config.json").read_text())["chat_template"].startswith("{")
    assert (out / "tokenizer.json").read_bytes() == (tiny.ready() / "tokenizer.json").read_bytes()
    written = (out / "Modelfile").read_text()
    assert 'SYSTEM """Be kind."""' in written and 'PARAMETER stop "<|eot_id|>"' in written
    words = ["model.new_special_tokens='<mark>'", "model.resize_vocab=true"]
    grown = export(tmp_path, *words, name="grown")
    assert AutoTokenizer.from_pretrained(grown).convert_tokens_to_ids("<mark>") == 1024
    assert loaded(grown).config.vocab_size == 1025


@pytest.mark.parametrize("grown", [False, True])
def test_the_converter_of_llama_cpp_finds_the_tokenizer(grown: bool, tmp_path: Path) -> None:
    """What convert_hf_to_gguf.py reads of a folder: by Transformers the tokens and how a text is cut, which tells it
    the pre-tokenizer, and by its own package the merges, the special tokens and the chat template."""
    more = ["model.new_special_tokens='<mark>'", "model.resize_vocab=true"] if grown else []
    out = export(tmp_path, "data.template=llama3", *more)
    size = json.loads((out / "config.json").read_text())["vocab_size"]
    known, base = AutoTokenizer.from_pretrained(out), AutoTokenizer.from_pretrained(tiny.ready())
    vocabulary: dict[str, int] = known.get_vocab()
    assert max(vocabulary.values()) < size and len(set(vocabulary.values())) == len(vocabulary)
    text = "\n \n\n \t 🦙 3 33 333 élan ______ I've been'told he's"
    assert known.encode(text) == base.encode(text)
    special = gguf.SpecialVocab(out, load_merges=True, n_vocab=size)
    assert special.merges == gguf.SpecialVocab(tiny.ready(), load_merges=True).merges and special.merges
    assert special.chat_template == known.chat_template
    for kind in ("bos", "eos", "unk", "pad"):
        assert special.special_token_ids.get(kind) == getattr(known, f"{kind}_token_id"), kind
    assert grown == ("<mark>" in known.get_added_vocab())


SHORT = ("stage=sft", "data.max_samples=12", "data.val_size=0", "training.eval_strategy=no", "training.max_steps=2",
         "training.learning_rate=0.01", "training.warmup_ratio=0", "training.save_strategy=no",
         "training.plot_loss=false", "model.compute_dtype=float32")  # fmt: skip


@pytest.mark.parametrize("method", ["pissa", "freeze", "full", "llama_pro"])
def test_what_a_method_trained_is_what_is_exported(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    trained: list[Any] = []
    load_policy = assemble.load_policy

    def watched(*given: Any) -> Any:
        trained.append(load_policy(*given))
        return trained[0]

    monkeypatch.setattr(assemble, "load_policy", watched)
    cfg = compose.typed(compose.composed(["model=tiny", f"method={method}", *SHORT]))
    assert work(cfg, tmp_path / "run") == 0
    runs.update_manifest(tmp_path / "run", status="done")  # as the launcher does
    words = ["job=export", "from_run=run", "export.export_dir=exported", FULL]
    run_job(tmp_path / "exporting", *words, model=None)
    after = logits(loaded(tmp_path / "exported"))
    assert same(after, logits(trained[0]))
    assert not same(after, logits(loaded(tiny.ready())))


def test_a_value_head_goes_along(tmp_path: Path) -> None:
    adapter = save(tmp_path / "adapter", tiny.ready(), 1)
    (adapter / VALUE_HEAD).write_bytes(b"head")
    assert (export(tmp_path, f"model.adapter_name_or_path={adapter}") / VALUE_HEAD).read_bytes() == b"head"


def test_from_a_run_by_the_command_that_its_end_names(finished: Finished, cli: Cli, tmp_path: Path) -> None:
    run = finished("sft")
    (line,) = [line for line in run.done.stdout.splitlines() if "job=export" in line]
    words = line.split("llmf_hydra ", 1)[1].split()
    assert words[0] == "job=export" and words[1] == f"from_run={run.out.relative_to(run.cwd)}"
    target = tmp_path / "exported"
    done = cli(*words[:2], f"export.export_dir={target}", FULL, cwd=run.cwd)
    assert done.returncode == 0, done.stderr
    assert same(logits(loaded(target)), adapted(run.out / "final"))
    card = (target / "README.md").read_text()
    header = yaml.safe_load(card.split("---")[1])
    assert header["library_name"] == "transformers" and header["tags"] == ["sft", "llmf_hydra"]
    assert (
        "Trained by stage=sft" in card
        and "| training.learning_rate | `0.01` |" in card
        and "`eval_loss`" in card
    )
    record = json.loads((target / "export.json").read_text())["runs"][0]
    assert (
        record["stage"] == "sft"
        and record["packages"]["torch"]
        and "host" not in record
        and "cwd" not in record
    )


def test_a_reward_model_is_exported_with_its_head(finished: Finished, tmp_path: Path) -> None:
    final = finished("rm").out / "final"
    out = export(tmp_path, "stage=rm", f"model.adapter_name_or_path={final}", FULL)
    base: Any = AutoModelForSequenceClassification.from_pretrained(tiny.ready(), num_labels=1)
    base.config.pad_token_id = 2
    expected = logits(PeftModel.from_pretrained(base, str(final)))
    given: Any = AutoModelForSequenceClassification.from_pretrained(out)
    assert same(logits(given), expected) and not (out / "Modelfile").exists()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    out = export(tmp_path)
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    again = ["job=export", f"export.export_dir={out}"]
    assert refused(*again) == [
        f"export.export_dir={out}: holds files already; name a new folder, or set export.overwrite=true"
    ]
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
    run_job(tmp_path / "again", *again, "export.overwrite=true", "export.export_legacy_format=true")
    assert (out / "pytorch_model.bin").exists() and not (out / "model.safetensors").exists()
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []
    users = tmp_path / "users"
    users.mkdir()
    (users / "thesis.txt").write_text("mine")
    (told,) = refused("job=export", f"export.export_dir={users}", "export.overwrite=true")
    assert "holds files that no export has written" in told and (users / "thesis.txt").exists()
    (told,) = refused(
        "job=export", f"export.export_dir={tmp_path}", f"model.model_name_or_path={out}", model=None
    )
    assert "holds the model or an adapter that is exported" in told
    (told,) = refused(
        "job=export", f"export.export_dir={out}/new", f"model.model_name_or_path={out}", model=None
    )
    assert "lies in the folder of the model" in told
    (tmp_path / "empty").mkdir()
    assert export(tmp_path, name="empty").is_dir()


def test_what_is_half_written_is_taken_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_tokenizer", full)
    with pytest.raises(OSError, match="No space"):
        export(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["run-exported"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "export.export_dir=null: no folder is named"),
        (["export.export_dir=out", "quantization.quantization_bit=4"],
         "quantization.quantization_bit=4: job=export writes full-precision weights"),
        (["export.export_dir=out", "export.export_quantization_bit=4", "export.export_quantization_dataset=demo_text"],
         "export.export_quantization_bit=4: needs the package gptqmodel; pip install 'llmf_hydra[gptq]'"),
        (["export.export_dir=out", "export.export_quantization_bit=4"], "needs calibration data"),
        (["export.export_dir=out", "export.export_quantization_bit=5", "export.export_quantization_dataset=demo_text"],
         "is not one of 2, 3, 4, 8"),
        (["export.export_dir=out", "export.export_quantization_dataset=demo_text"],
         "export.export_quantization_dataset=demo_text: has no effect with export.export_quantization_bit=None"),
        (["export.export_dir=out", "export.export_quantization_nsamples=4"], "has no effect"),
        (["export.export_dir=out", "export.export_quantization_maxlen=4"], "has no effect"),
        (["export.export_dir=out", "export.export_quantization_bit=4", "export.export_quantization_dataset=demo_text",
          "export.export_legacy_format=true"], "quantized weights are written as safetensors"),
        (["export.export_dir=out", "model.device_map=cpu"], "export.export_device places the model"),
        (["export.export_dir=out", "model.mixture_of_depths=load", "method=full"], "has routers"),
        (["export.export_dir=out", "export.export_hub_model_id=just-a-name"], "write it as owner/name"),
        (["export.export_dir=out", "export.overwrite=true"], "export.overwrite=true: has no effect"),
        (["export.export_dir=out", "generation.top_k=3"], "generation.top_k=3: has no effect with job=export"),
    ],
)  # fmt: skip
def test_what_cannot_be_exported_is_refused(words: list[str], told: str) -> None:
    found = refused("job=export", *words)
    assert any(told in problem for problem in found), found


def test_a_quantized_base_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps({"quantization_config": {"quant_method": "bitsandbytes"}})
    )
    found = refused("job=export", "export.export_dir=out", f"model.model_name_or_path={tmp_path}", model=None)
    assert any(
        "is quantized with bitsandbytes, and job=export writes full-precision" in one for one in found
    ), found


def test_calibration_texts(tmp_path: Path) -> None:
    rows = [{"text": f"Text number {n} " + "goes on " * n} for n in range(20)]
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf8")
    tokenizer = AutoTokenizer.from_pretrained(tiny.ready())

    def samples(count: int, longest: int) -> list[list[int]]:
        settings = ExportConfig(export_quantization_dataset=str(file), export_quantization_nsamples=count,
                                export_quantization_maxlen=longest)  # fmt: skip
        return [one["input_ids"] for one in calibration(settings, DataConfig(), tokenizer, None)]

    assert len(samples(7, 100)) == 7 and samples(7, 100) == samples(7, 100)
    assert max(map(len, samples(20, 9))) == 9
    with pytest.raises(Refused, match=r"holds 20 texts, and export.export_quantization_nsamples=21"):
        samples(21, 9)


def test_an_export_is_pushed_to_a_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving({}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        out = export(tmp_path, "export.export_hub_model_id=org/merged", f"model.hf_hub_token={TOKEN}")
        pushed = hub.pushed["org/merged"]
        assert pushed.keys() == {file.name for file in out.iterdir()}
        assert all(pushed[file.name] == file.read_bytes() for file in out.iterdir())
        assert TOKEN not in "".join(
            file.read_text(errors="replace") for file in tmp_path.rglob("*") if file.is_file()
        )
        with pytest.raises(
            Refused, match=r"export.export_hub_model_id=org/merged: .*does not accept the token"
        ):
            export(
                tmp_path, "export.export_hub_model_id=org/merged", "model.hf_hub_token=hf_wrong", name="wrong"
            )
        assert not (tmp_path / "wrong").exists(), "refused before the work"
