"""Quantized weights from the command line: every stage, resume, merged adapters, models saved quantized, refusals."""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.adapter_runs import merged
from support.command_line import Cli, losses
from support.stage_runs import SGD, Build, composed, steps

from llmf_hydra import refusals
from llmf_hydra.checks.method import pissa_needs_whole_weights
from llmf_hydra.config import record
from llmf_hydra.config.groups.quantization import QuantizationConfig
from llmf_hydra.errors import Refused
from llmf_hydra.models.builtin import tiny
from llmf_hydra.models.quantization import weights as quantized

pytest.importorskip("bitsandbytes", reason="needs bitsandbytes: pip install 'llmf_hydra[bnb]'")

FOUR = "quantization=bnb4"
WORDS = ["model=tiny", "data.max_samples=40", "data.val_size=0", "training.logging_steps=1", "training.save_steps=2",
         "training.max_steps=4", "training.learning_rate=0.01", "training.per_device_train_batch_size=2",
         "training.eval_strategy=no"]  # fmt: skip


def problems(*words: str) -> str:
    cfg = composed(*words)
    return "\n".join(map(str, refusals.problems(cfg, {})))


def test_qlora_is_four_bits_under_lora(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMF_CACHE", str(cache))
    cfg = composed("stage=sft", "method=qlora")
    assert cfg.method.name == "lora" and cfg.quantization == QuantizationConfig(quantization_bit=4)
    assert composed("method=qlora", "quantization=bnb8").quantization.quantization_bit == 8


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "bits"), [("sft", 4), ("dpo", 8)])
def test_a_resumed_run_writes_the_same_bytes(stage: str, bits: int, cli: Cli, tmp_path: Path) -> None:
    words = [f"stage={stage}", *WORDS, "method=qlora", f"quantization=bnb{bits}"]
    done = cli(*words, "hydra.run.dir=whole")
    assert done.returncode == 0, done.stderr
    (hint,) = (line for line in done.stdout.splitlines() if "train it on" in line)
    assert hint.endswith(
        f"quantization.quantization_method=bitsandbytes quantization.quantization_bit={bits}"
    )
    resumed = ["hydra.run.dir=resumed", "training.resume_from_checkpoint=whole/checkpoint-2"]
    done = cli(*words, *resumed)
    assert done.returncode == 0, done.stderr
    whole, again = (tmp_path / name / "final/adapter_model.safetensors" for name in ("whole", "resumed"))
    assert whole.read_bytes() == again.read_bytes()
    other = cli(*words, *resumed, "hydra.run.dir=other", f"quantization.quantization_bit={12 - bits}")
    assert other.returncode == 2 and f"was trained with {bits}, which a resumed run must keep" in other.stderr
    assert losses(tmp_path / "whole")[2:] == losses(tmp_path / "resumed")
    assert any(weight.abs().max() > 0 for name, weight in load_file(whole).items() if "lora_B" in name)
    assert "quantization_bit: " + str(bits) in (tmp_path / "whole/config.yaml").read_text()


@pytest.mark.skipif(find_spec("hqq") is None, reason="needs hqq: pip install 'llmf_hydra[hqq]'")
def test_hqq_quantizes_in_a_worker(cli: Cli, tmp_path: Path) -> None:
    """Workers leave out packages that their run doesn't use, and PEFT asks for hqq once."""
    done = cli("stage=sft", *WORDS, "quantization=hqq3", "training.warmup_ratio=0", "hydra.run.dir=run")
    assert done.returncode == 0 and not done.stderr, done.stderr
    weights = load_file(tmp_path / "run/final/adapter_model.safetensors")
    assert sum("lora_B" in name for name in weights) == 14
    assert all(weight.any() for name, weight in weights.items() if "lora_B" in name)


@pytest.mark.parametrize("stage", [pytest.param("pt", marks=pytest.mark.slow), "dpo", "kto", "rm"])
def test_each_stage_trains_on_quantized_weights(stage: str, build: Build) -> None:
    words = [f"stage={stage}", *SGD, "training.learning_rate=0.1"]
    plain, _ = steps(build(*words))
    logged, weights = steps(build(*words, FOUR))
    same = stage in ("dpo", "kto")  # the reference is the quantized base, so the first step is the same
    assert (logged[0] == pytest.approx(plain[0], abs=1e-6)) == same and logged != plain
    assert any(weight.any() for name, weight in weights.items() if "lora_B" in name)


@pytest.mark.parametrize("bits", [4, 8])
def test_gradients_are_the_same_after_an_evaluation(bits: int, build: Build) -> None:
    """bitsandbytes repacks 4-bit weights in evaluation mode, where the CPU has bfloat16, and its kernel for these has
    no gradient."""
    model = build("stage=sft", *SGD, f"quantization=bnb{bits}").model
    ids = torch.arange(20, 40)[None]
    found = []
    for _ in range(2):
        model.train().zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        found.append(
            {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.requires_grad}
        )
        with torch.no_grad():
            model.eval()(input_ids=ids)
    before, after = found
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert any(grad.any() for name, grad in before.items() if "layers.0" in name and "lora_B" in name)


@pytest.mark.slow
def test_ppo_samples_from_quantized_weights(cli: Cli, tmp_path: Path) -> None:
    words = [*WORDS, "data.max_samples=12", FOUR]
    done = cli("stage=rm", *words, "hydra.run.dir=reward")
    assert done.returncode == 0, done.stderr
    words += ["rlhf.reward_model=reward/final", "generation.max_new_tokens=6", "training.max_steps=2"]
    done = cli("stage=ppo", *words, "hydra.run.dir=ppo")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "ppo/final/adapter_model.safetensors").exists()


def test_an_adapter_is_merged_into_full_precision_before_the_weights_are_quantized(
    first: Path, build: Build
) -> None:
    words = ["stage=sft", *SGD, f"model.adapter_name_or_path={first}", "method.create_new_adapter=true"]
    trainer = build(*words, FOUR)
    ours = trainer.model.get_base_model()
    folder = trainer.context.out / "merged"
    merged(first).save_pretrained(folder)
    cfg = composed(*words)
    cfg.model.model_name_or_path = str(folder)
    theirs = quantized.bits_alone(4)
    from llmf_hydra.models.load import load_model

    expected = load_model(cfg.model, torch.float32, theirs).model.layers[1].mlp.up_proj
    found = ours.model.layers[1].mlp.up_proj.base_layer
    assert torch.equal(found.weight, expected.weight)
    some = torch.randn(2, 64)
    assert torch.equal(found(some), expected(some))
    assert Path(trainer.model.peft_config["default"].base_model_name_or_path) == tiny.ready()


def test_a_quantized_adapter_goes_on_full_precision(build: Build, tmp_path: Path) -> None:
    trainer = build("stage=sft", *SGD, FOUR)
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    whole = merged(tmp_path / "saved")
    assert all(weight.dtype == torch.float32 for weight in whole.parameters())
    assert not any("4bit" in type(module).__name__ for module in whole.modules())


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(QuantizationConfig(quantization_bit=4), id="bnb4"),
        pytest.param(QuantizationConfig(quantization_bit=4, double_quantization=False), id="bnb4 single"),
        pytest.param(QuantizationConfig(quantization_bit=8), id="bnb8"),
        *(
            pytest.param(QuantizationConfig(quantization_method="hqq", quantization_bit=bit), id=f"hqq{bit}")
            for bit in ((2, 3, 4, 8) if find_spec("hqq") else ())
        ),
    ],
)
def test_the_weights_are_as_small_as_estimated(settings: QuantizationConfig, build: Build) -> None:
    """Bytes of the linear layers with their constants. NF4 takes an eighth of float32."""
    from llmf_hydra.models.load import load_model

    model, dtype = composed("stage=sft").model, torch.float32
    whole = load_model(model, dtype)
    linear = sum(layer.weight.numel() * 4 for _, layer in quantized._linear(whole))
    rest = sum(weight.numel() * 4 for weight in whole.parameters()) - linear
    small = load_model(model, dtype, settings)
    held = sum(_held(module) for module in small.modules())
    # A 256-number codebook of each layer's constants is beside the point on a model of 100,000 weights.
    assert held == pytest.approx(quantized.size(whole, settings, dtype) - rest, rel=0.05)
    assert held < 0.4 * linear
    plain = quantized.size(whole, quantized.FULL_PRECISION, dtype)
    assert plain == linear + rest


def _held(module: Any) -> int:
    """Bytes of a quantized layer's weight and its constants, without the tables that do not grow with it."""

    def size(tensor: torch.Tensor) -> int:
        return tensor.numel() * tensor.element_size()

    match type(module).__name__:
        case "Linear4bit":
            state = module.weight.quant_state
            inner = size(state.state2.absmax) if state.nested else 0
            return size(module.weight) + size(state.absmax) + inner
        case "Linear8bitLt":
            return size(module.weight) + size(module.weight.SCB)
        case "HQQLinear":
            return size(module.W_q) + size(module.meta["scale"]) + size(module.meta["zero"])
    return 0


@pytest.mark.slow
def test_the_embedded_model_in_four_bits() -> None:
    """SmolLM2-135M: the linear layers take 13 % of float32, the whole model 31 %, since the embeddings stay."""
    from llmf_hydra.models.load import load_model

    model, dtype = composed("stage=sft", model="smollm2").model, torch.float32
    whole = load_model(model, dtype)
    linear = sum(layer.weight.numel() * 4 for _, layer in quantized._linear(whole))
    total = sum(weight.numel() * 4 for weight in whole.parameters())
    small = load_model(model, dtype, quantized.bits_alone(4))
    held = sum(_held(module) for module in small.modules())
    assert held / linear == pytest.approx(0.129, abs=0.002)
    assert (held + total - linear) / total == pytest.approx(0.31, abs=0.02)


def test_the_device_map_is_for_inference() -> None:
    four = QuantizationConfig(quantization_bit=4)
    auto = QuantizationConfig(quantization_bit=4, quantization_device_map="auto")
    place = "cuda:0" if torch.cuda.is_available() else "cpu"
    maps = [quantized.loading_options(q, torch.float32)["device_map"] for q in (four, auto)]
    assert maps == [{"": place}, "auto"]


def test_eetq_is_handed_to_transformers() -> None:
    eetq = QuantizationConfig(quantization_method="eetq", quantization_bit=8)
    options = quantized.loading_options(eetq, torch.float16)
    assert options["quantization_config"].quant_method == "eetq"


@pytest.fixture
def saved_quantized(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny model as bitsandbytes saved it in 4 bits."""
    from llmf_hydra.models.load import load_model

    monkeypatch.setenv("LLMF_CACHE", str(cache))
    shutil.copytree(tiny.ready(), tmp_path / "four")
    (tmp_path / "four/model.safetensors").unlink()
    small = load_model(composed("stage=sft").model, torch.float32, quantized.bits_alone(4))
    small.save_pretrained(tmp_path / "four")
    return tmp_path / "four"


def test_a_model_that_was_saved_quantized_is_trained_as_it_is(saved_quantized: Path, build: Build) -> None:
    words = ["stage=sft", *SGD]
    named = ["model=tiny", f"model.model_name_or_path={saved_quantized}"]
    assert steps(build(*words, *named))[0] == steps(build(*words, FOUR))[0]


def test_a_model_that_was_saved_quantized_has_rules_of_its_own(saved_quantized: Path) -> None:
    named = ["stage=sft", "model=tiny", f"model.model_name_or_path={saved_quantized}"]
    again = problems(*named, FOUR)
    assert "is quantized already, with bitsandbytes; set quantization=none" in again
    assert "quantized weights are not trained; choose method=lora" in problems(*named, "method=full")
    config = saved_quantized / "config.json"
    known = json.loads(config.read_text())
    for method, told in {
        "gptq": "is quantized with gptq and needs the package gptqmodel and optimum; pip install 'llmf_hydra[gptq]'",
        "awq": "is quantized with awq and needs the package gptqmodel; pip install 'llmf_hydra[gptq]'",
        "spqr": "is quantized with spqr, which is not supported here",
    }.items():
        config.write_text(json.dumps({**known, "quantization_config": {"quant_method": method, "bits": 4}}))
        assert told in problems(*named)


def test_what_cannot_be_quantized_is_refused() -> None:
    cases = {
        "method=full quantization=bnb4": "quantized weights are not trained, and method=full trains them",
        "quantization.quantization_bit=3": "bitsandbytes quantizes to 4 or 8 bits; set quantization.quantization_me",
        "quantization=hqq4 quantization.quantization_bit=5": "hqq quantizes to 1 or 2 or 3 or 4 or 8 bits",
        "quantization=bnb8 quantization.quantization_type=fp4": "quantization.quantization_type=fp4: has no effect",
        "quantization=none quantization.quantization_method=hqq": "quantization.quantization_method=hqq: has no eff",
        "quantization=bnb4 quantization.quantization_device_map=auto": "is for inference",
    }
    if not torch.cuda.is_available():
        cases["quantization=eetq8"] = (
            "eetq computes on an NVIDIA GPU (CUDA), and this machine has none; choose bits"
        )
    for words, told in cases.items():
        assert told in problems("stage=sft", *words.split()), words


def test_quantized_modules_are_not_trained_whole(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from llmf_hydra.models.load import load_model

    monkeypatch.setenv("LLMF_CACHE", str(cache))
    cfg = composed("stage=sft", "method.additional_target=up_proj")
    model = load_model(cfg.model, torch.float32, quantized.bits_alone(8))
    with pytest.raises(Refused, match="up_proj is quantized"):
        quantized.with_targets(cfg.method, model)


def test_pissa_decomposes_weights_in_full_precision() -> None:
    cfg = composed("stage=sft", FOUR)
    assert not list(pissa_needs_whole_weights(cfg))
    cfg.method.pissa_init = True
    assert "quantized weights can't be decomposed" in str(*pissa_needs_whole_weights(cfg))


@pytest.mark.parametrize(("package", "choice"), [("bitsandbytes", "bnb4"), ("hqq", "hqq4")])
def test_a_missing_library_is_refused_with_the_command(
    package: str, choice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find(name: str) -> object:
        return None if name == package else find_spec(name)

    monkeypatch.setattr("importlib.util.find_spec", find)
    extra = {"bitsandbytes": "bnb"}.get(package, package)
    told = problems("stage=sft", f"quantization={choice}")
    assert f"needs the package {package}; pip install 'llmf_hydra[{extra}]'" in told


def test_the_record_of_a_run_keeps_its_bits(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(record.dump(composed("stage=sft", "quantization=bnb8")))
    assert record.load(tmp_path / "config.yaml").quantization.quantization_bit == 8
