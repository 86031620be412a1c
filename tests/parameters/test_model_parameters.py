"""Group `model`: which weights are loaded, from where, and in which way they compute."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.parameter_runs import Case, Outcome, Train, config, kinds, parameter
from transformers import dynamic_module_utils

from llmf_hydra import worker
from llmf_hydra.errors import Refused
from llmf_hydra.jobs import assemble
from llmf_hydra.models import precision
from llmf_hydra.models.builtin.tiny import ready
from llmf_hydra.models.load import load_model, load_tokenizer

FULL = {"method.name": "full"}
SINGLE, HALF = torch.float32, torch.bfloat16
HUB = "org/tiny"
OWN_CODE = """
from transformers import LlamaConfig, LlamaForCausalLM

class OwnConfig(LlamaConfig):
    model_type = "own"

class Own(LlamaForCausalLM):
    config_class = OwnConfig
"""


def starts_from_the_file(of: Outcome) -> bool:
    saved = load_file(ready() / "model.safetensors")
    return all(torch.equal(of.weights[0][name], weight) for name, weight in saved.items())


CASES = [
    Case("model.flash_attn", lambda of: of.sdpa > 0, {"auto": True, "sdpa": True, "disabled": False}),
    # A checkpointed layer runs twice: at first without recording gradients, where it is reentrant.
    Case("model.disable_gradient_checkpointing", lambda of: of.passes, {False: [False, True], True: [True]}),
    Case("model.use_reentrant_gc", lambda of: of.passes, {True: [False, True], False: [True, True]}),
    Case("model.train_from_scratch", starts_from_the_file, {False: True, True: False}, FULL),
    Case(
        "model.compute_dtype",
        kinds,
        {
            "float32": (SINGLE, SINGLE, SINGLE),
            "bfloat16": (HALF, HALF, SINGLE),
            "float16": (torch.float16, torch.float16, SINGLE),
        },
    ),
    Case(
        "model.compute_dtype",
        kinds,
        {"float32": (SINGLE, SINGLE, SINGLE), "bfloat16": (SINGLE, HALF, SINGLE)},
        FULL,
    ),
]


@pytest.fixture
def flat(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny model with embeddings of 0, to which all tokens are equally likely."""
    monkeypatch.setenv("LLMF_CACHE", str(cache))
    shutil.copytree(ready(), tmp_path / "flat")
    file = tmp_path / "flat" / "model.safetensors"
    weights = {name: weight * ("embed" not in name) for name, weight in load_file(file).items()}
    save_file(weights, file, {"format": "pt"})
    return tmp_path / "flat"


@pytest.fixture
def hub(flat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of a hub that cannot be reached: `org/tiny`, in the revisions `main` and `flat`."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    model = tmp_path / "hub" / "models--org--tiny"
    (model / "refs").mkdir(parents=True)
    for revision, source, commit in (("main", ready(), "a" * 40), ("flat", flat, "b" * 40)):
        (model / "refs" / revision).write_text(commit)
        shutil.copytree(source, model / "snapshots" / commit)
    return tmp_path / "hub"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.key)
def test_outcomes(case: Case, train: Train) -> None:
    case.check(train)


@parameter("model.flash_attn")
def test_attention_computes_the_same_either_way(train: Train) -> None:
    fused, eager = (train({"model.flash_attn": kind}).losses for kind in ("sdpa", "disabled"))
    assert fused == pytest.approx(eager, rel=1e-4)


@parameter("model.compute_dtype")
def test_half_precision_moves_the_loss_a_little(train: Train) -> None:
    types = ("float32", "bfloat16", "float16")
    whole, *halves = (train({"model.compute_dtype": kind}).losses[0] for kind in types)
    assert len({whole, *halves}) == 3 and halves == pytest.approx([whole, whole], rel=0.01)


@parameter("model.compute_dtype", "training.bf16")
@pytest.mark.parametrize(("has", "weights"), [(True, HALF), (False, SINGLE)])
def test_the_hardware_decides_where_no_type_is_given(
    has: bool, weights: torch.dtype, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "_has_bfloat16", lambda: has)
    cfg = config(rows, {"model.compute_dtype": None})
    assert precision.decide(cfg) == precision.Precision(weights, autocast=False)
    cfg.method.name = "full"
    assert precision.decide(cfg) == precision.Precision(SINGLE, autocast=has)
    cfg.training.bf16 = False
    assert precision.decide(cfg) == precision.Precision(weights, autocast=False)


@parameter("model.train_from_scratch")
def test_weights_from_scratch_follow_the_seed(train: Train) -> None:
    scratch = {**FULL, "model.train_from_scratch": True}
    first, other = train(scratch), train({**scratch, "training.seed": 43})
    assert first.losses[0] != other.losses[0]


@parameter("model.model_name_or_path")
def test_another_model_has_another_loss(train: Train, flat: Path) -> None:
    assert train({}).losses[0] != pytest.approx(math.log(1024), abs=1e-3)
    assert train({"model.model_name_or_path": str(flat)}).losses[0] == pytest.approx(math.log(1024), abs=1e-6)


@parameter("model.cache_dir", "model.model_revision")
def test_a_hub_model_comes_from_its_cache_in_its_revision(hub: Path, rows: Path) -> None:
    named = {"model.model_name_or_path": HUB, "model.cache_dir": str(hub)}
    for revision, flat in (("main", False), ("flat", True)):
        cfg = config(rows, {**named, "model.model_revision": revision})
        assert load_tokenizer(cfg.model).vocab_size == 1024
        loaded = load_model(cfg.model, SINGLE)
        assert loaded.get_input_embeddings().weight.any().item() != flat
    for wrong in ({"model.model_revision": "absent"}, {"model.cache_dir": str(hub / "elsewhere")}):
        with pytest.raises(Refused):
            load_model(config(rows, {**named, **wrong}).model, SINGLE)


@parameter("model.cache_dir", "model.model_revision")
def test_the_check_before_the_weights_looks_into_the_same_cache(hub: Path, rows: Path) -> None:
    named = {"model.model_name_or_path": HUB, "model.cache_dir": str(hub)}
    cfg = config(rows, {**named, "model.model_revision": "flat"})
    assert assemble.load_inputs(cfg).estimate.parameters == load_model(cfg.model, SINGLE).num_parameters()


@parameter("model.split_special_tokens")
@pytest.mark.parametrize(("split", "ends"), [(False, 3), (True, 2)])
def test_a_special_token_in_the_text_may_be_plain_text(
    split: bool, ends: int, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMF_CACHE", str(cache))
    row = {"instruction": "Say it.", "output": "It ends with <|im_end|> here."}
    (tmp_path / "one.jsonl").write_text(json.dumps(row))
    inputs = assemble.load_inputs(config(tmp_path / "one.jsonl", {"model.split_special_tokens": split}))
    tokens = inputs.rows.train[0]["input_ids"]
    assert tokens.count(inputs.tokenizer.convert_tokens_to_ids("<|im_end|>")) == ends
    assert row["output"] in inputs.tokenizer.decode(tokens)


@pytest.fixture
def own(flat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The flat model as a kind of model that only its own code knows."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    (flat / "modeling_own.py").write_text(OWN_CODE)
    known = json.loads((flat / "config.json").read_text())
    codes = {"AutoConfig": "modeling_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.Own"}
    (flat / "config.json").write_text(json.dumps({**known, "model_type": "own", "auto_map": codes}))
    return flat


@parameter("model.trust_remote_code")
def test_code_of_a_model_is_run_on_request_alone(own: Path, rows: Path) -> None:
    cfg = config(rows, {"model.model_name_or_path": str(own)})
    with pytest.raises(Refused, match="code of its own"):
        load_model(cfg.model, SINGLE)
    cfg.model.trust_remote_code = True
    loaded = load_model(cfg.model, SINGLE)
    assert type(loaded).__name__ == "Own" and not loaded.get_input_embeddings().weight.any()


@parameter("launch.force_check_imports")
@pytest.mark.parametrize("force", [False, True])
def test_what_a_models_code_imports_on_another_path_may_be_missing(
    own: Path, rows: Path, monkeypatch: pytest.MonkeyPatch, force: bool
) -> None:
    code = own / "modeling_own.py"
    code.write_text(f"{code.read_text()}\n\ndef faster():\n    import a_kernel_that_is_missing\n")
    named = {"model.model_name_or_path": str(own), "model.trust_remote_code": True}
    cfg = config(rows, {**named, "launch.force_check_imports": force})
    monkeypatch.setattr(
        dynamic_module_utils, "check_imports", dynamic_module_utils.check_imports
    )  # put back after it
    worker.set_up_libraries(cfg)
    if force:
        with pytest.raises(Refused, match="a_kernel_that_is_missing"):
            load_model(cfg.model, SINGLE)
    else:
        assert type(load_model(cfg.model, SINGLE)).__name__ == "Own"


@parameter("model.trust_remote_code")
def test_a_model_with_its_own_code_is_trained(own: Path, train: Train) -> None:
    named = {"model.model_name_or_path": str(own)}
    with pytest.raises(Refused, match="code of its own"):
        train(named)
    done = train({**named, "model.trust_remote_code": True})
    assert done.losses[0] == pytest.approx(math.log(1024), abs=1e-6)
