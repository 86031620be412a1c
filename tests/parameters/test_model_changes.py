"""Group `model`: what is done to a network when it is loaded, as a run shows it."""

import json
import shutil
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from support.parameter_runs import Train, Work, config, kinds, parameter
from transformers import AutoConfig, AutoModelForCausalLM, MixtralConfig, Qwen2MoeConfig

from llmf_hydra import refusals
from llmf_hydra.config.groups.model import ModelConfig
from llmf_hydra.errors import Refused
from llmf_hydra.models.architecture import checkpointing
from llmf_hydra.models.architecture.mixture_of_depths import LOSS_WEIGHT, ROUTER
from llmf_hydra.models.architecture.placement import check_names
from llmf_hydra.models.builtin.tiny import ready
from llmf_hydra.models.load import load_model, load_tokenizer

FULL = {"method.name": "full"}
HALF = {"model.compute_dtype": "bfloat16"}
SAVED = {"training.max_steps": 4, "training.save_strategy": "steps", "training.save_steps": 2}
PARTS = ("model.embed_tokens", "model.layers.0", "model.norm", "model.rotary_emb", "lm_head")
PLACES = {"model.layers.1": "disk", **dict.fromkeys(PARTS, "cpu")}
IDS = torch.arange(40)[None] + 3
LONG = {"data.cutoff_len": 4096}


def logits(network: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return network.eval()(input_ids=IDS, use_cache=False).logits


def refused(rows: Path, changes: dict[str, object]) -> list[str]:
    """What a check says of a run on the tiny model with these changes."""
    return [str(problem) for problem in refusals.problems(config(rows, changes), {})]


@parameter("model.rope_scaling")
def test_scaled_positions_train_and_are_saved(train: Train, rows: Path) -> None:
    losses = [train(FULL).losses[0]]
    for kind in ("linear", "yarn", "llama3"):
        done = train({**FULL, **LONG, "model.rope_scaling": kind})
        losses.append(done.losses[0])
        done.trainer.save_final()
        again = AutoModelForCausalLM.from_pretrained(done.out / "final")
        assert again.config.rope_parameters["factor"] == 2 and again.config.max_position_embeddings == 4096
        assert torch.equal(logits(again), logits(done.trainer.model)), kind
    assert len(set(losses)) == 4
    adapted = train({**LONG, "model.rope_scaling": "linear"})
    adapted.trainer.save_final()
    final = adapted.out / "final"
    base = AutoModelForCausalLM.from_pretrained(ready(), config=AutoConfig.from_pretrained(final))
    assert torch.equal(logits(PeftModel.from_pretrained(base, final)), logits(adapted.trainer.model))
    given = {"model.adapter_name_or_path": str(final)}
    scaled = {"model.rope_scaling": "linear"}
    assert refused(rows, {**given, **scaled, **LONG}) == []
    assert any(
        "was trained with linear; set model.rope_scaling=linear" in line for line in refused(rows, given)
    )
    longer = refused(rows, {**given, **scaled, "data.cutoff_len": 5000})
    assert any("scales by 3, and" in line and "model.model_max_length=4096" in line for line in longer)
    plain = AutoModelForCausalLM.from_pretrained(ready())
    assert not torch.allclose(logits(PeftModel.from_pretrained(plain, final)), logits(base), atol=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {**LONG, "model.rope_scaling": "yarn"},
        {"model.mixture_of_depths": "convert"},
        {"model.shift_attn": True},
    ],
)
def test_a_resumed_run_ends_with_the_same_bytes(changes: dict[str, object], worked: Work) -> None:
    whole = worked("whole", {**FULL, **SAVED, **changes})
    rest = {"training.resume_from_checkpoint": str(whole / "checkpoint-2")}
    again = worked("again", {**FULL, **SAVED, **changes, **rest})
    first, second = (load_file(run / "final" / "model.safetensors") for run in (whole, again))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@parameter("model.model_max_length", "data.cutoff_len")
def test_the_models_length_is_the_tokenizers_and_scales_positions(rows: Path, train: Train) -> None:
    assert [load_tokenizer(config(rows, {"model.model_max_length": length}).network).model_max_length
            for length in (None, 5000)] == [2048, 5000]  # fmt: skip
    longer = train({**FULL, "model.rope_scaling": "linear", "model.model_max_length": 5000})
    assert longer.trainer.model.config.rope_parameters["factor"] == 3
    assert any(
        "is below data.cutoff_len=2048" in line for line in refused(rows, {"model.model_max_length": 100})
    )


@parameter("model.rope_scaling")
def test_positions_that_need_no_scaling_are_refused_before_torch(rows: Path) -> None:
    (problem,) = refused(rows, {"model.rope_scaling": "linear"})
    assert "model.rope_scaling=linear: has no effect: the model takes 2048 tokens by itself" in problem
    assert refused(rows, {"model.rope_scaling": "linear", **LONG}) == []


@parameter("model.block_diag_attn")
def test_rows_of_a_pack_see_each_other_or_not(train: Train) -> None:
    def first_loss(packs: str, apart: bool) -> float:
        return train({packs: True, "model.block_diag_attn": apart, "training.max_steps": 1}).losses[0]

    together, apart = (first_loss("data.packing", asked) for asked in (False, True))
    assert together != pytest.approx(apart, abs=1e-5)
    assert first_loss("data.neat_packing", True) == first_loss("data.neat_packing", False)


@parameter("model.low_cpu_mem_usage")
def test_weights_are_mapped_or_read(rows: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMF_CACHE", str(cache))
    found = {}
    for low in (True, False):
        network = load_model(config(rows, {"model.low_cpu_mem_usage": low}).model, torch.float32)
        lines = Path("/proc/self/maps").read_text().splitlines()
        spans = [line.split()[0].split("-") for line in lines if str(ready().resolve()) in line]
        places = [range(int(start, 16), int(stop, 16)) for start, stop in spans]
        found[low] = any(network.get_input_embeddings().weight.data_ptr() in place for place in places)
    assert found == {True: True, False: False}


@parameter("model.device_map")
def test_a_device_map_places_the_weights(rows: Path, train: Train) -> None:
    plain, named, mapped = (train({"model.device_map": where}) for where in (None, "auto", {"": "cpu"}))
    assert plain.losses == named.losses == mapped.losses
    tiny = {"model_name_or_path": str(ready())}
    placed = load_model(ModelConfig(**tiny, device_map=PLACES), torch.float32)
    assert {name.split(".")[2] for name, weight in placed.named_parameters() if weight.is_meta} == {"1"}
    assert torch.equal(logits(placed), logits(load_model(ModelConfig(**tiny), torch.float32)))
    assert any("nothing can be trained" in line for line in refused(rows, {"model.device_map": PLACES}))
    said = {
        "nowhere": "names no device", "[1]": "names no device", "cuda:0": "names the GPU cuda:0",
    }  # fmt: skip
    for where, what in said.items():
        assert any(what in line for line in refused(rows, {"model.device_map": where})), where
    assert any("maps to something" in line for line in refused(rows, {"model.device_map": {"": "moon"}}))
    with pytest.raises(Refused, match="the model has no module modell; did you mean 'model'"):
        check_names(placed, {"modell": "cpu"})
    with pytest.raises(Refused, match=r"has no place for model\.embed_tokens"):
        check_names(placed, {"model.layers": "cpu"})
    several = refused(rows, {"model.device_map": "cpu", "launch.nproc_per_node": 2})
    assert any("has its own device" in line for line in several)


@parameter("model.offload_folder")
def test_weights_on_disk_lie_in_the_offload_folder(rows: Path, tmp_path: Path) -> None:
    network = AutoModelForCausalLM.from_pretrained(ready())
    folder = tmp_path / "old"
    shutil.copytree(ready(), folder)
    (folder / "model.safetensors").unlink()
    torch.save(
        network.state_dict(), folder / "pytorch_model.bin"
    )  # weights that can't be mapped from their file
    for where in ("one", "two"):
        placed = ModelConfig(
            model_name_or_path=str(folder), device_map=PLACES, offload_folder=str(tmp_path / where)
        )
        offloaded = load_model(placed, torch.float32)
        assert offloaded.model.layers[1].mlp.up_proj.weight.is_meta
        assert torch.equal(logits(offloaded), logits(network))
        assert len(list((tmp_path / where).iterdir())) >= 9
    asked = {"model.offload_folder": "elsewhere"}
    assert any("puts nothing on disk" in line for line in refused(rows, {**asked, "model.device_map": "cpu"}))
    assert refused(rows, {**asked, "model.device_map": "auto"}) == []


@parameter("model.flash_attn")
def test_flash_attention_says_what_it_needs(rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for changes in (
        {"model.flash_attn": "fa2"},
        {"model.enable_liger_kernel": True},
        {"model.use_unsloth": True},
    ):
        ((key, _),) = changes.items()
        (problem,) = refused(rows, changes)
        assert problem.startswith(key) and "needs CUDA, and this machine has no GPU" in problem
        with monkeypatch.context() as there:
            there.setattr("llmf_hydra.models.architecture.checks.GPU_DRIVERS", (rows,))
            (problem,) = refused(rows, changes)
            assert "needs the package" in problem and "pip install" in problem
            elsewhere = refused(rows, {**changes, "launch.use_slurm": True})
            assert not any(line.startswith(key) for line in elsewhere)


@parameter("model.enable_liger_kernel", "model.use_unsloth")
def test_kernels_are_for_one_model_and_leave_the_loss_alone(
    rows: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packages that write down how they are called, in place of those that need CUDA."""
    monkeypatch.setenv("LLMF_CACHE", str(cache))
    package = tmp_path / "liger_kernel" / "transformers"
    package.mkdir(parents=True)
    (tmp_path / "liger_kernel" / "__init__.py").touch()
    (package / "__init__.py").write_text(
        "def _apply_liger_kernel_to_instance(model, **given):\n    model.asked = given\n"
    )
    (package / "monkey_patch.py").write_text("MODEL_TYPE_TO_APPLY_LIGER_FN = {'llama': None}\n")
    (tmp_path / "unsloth.py").write_text(
        "from transformers import AutoModelForCausalLM\n"
        "class FastLanguageModel:\n"
        "    @staticmethod\n"
        "    def from_pretrained(model_name, dtype, load_in_4bit, max_seq_length, **_):\n"
        "        model = AutoModelForCausalLM.from_pretrained(model_name, dtype=dtype)\n"
        "        model.asked = max_seq_length\n"
        "        return model, None\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    liger = load_model(config(rows, {"model.enable_liger_kernel": True}).network, torch.float32)
    assert liger.asked == {"fused_linear_cross_entropy": False, "cross_entropy": False}
    unsloth = load_model(config(rows, {"model.use_unsloth": True}).network, torch.float32)
    assert unsloth.asked == 2048


@parameter("model.upcast_layernorm")
def test_norms_are_upcast(train: Train, rows: Path) -> None:
    plain, upcast = (train({**HALF, "model.upcast_layernorm": on}) for on in (False, True))
    assert kinds(plain) == kinds(upcast)
    assert {weight.dtype for name, weight in plain.weights[0].items() if "norm" in name} == {torch.bfloat16}
    assert {weight.dtype for name, weight in upcast.weights[0].items() if "norm" in name} == {torch.float32}
    (problem,) = refused(rows, {"model.upcast_layernorm": True})
    assert "has no effect with model.compute_dtype=float32" in problem


@parameter("model.upcast_lmhead_output")
def test_the_heads_output_is_upcast(train: Train, rows: Path) -> None:
    exact, half, upcast = (
        train(with_head) for with_head in ({}, HALF, {**HALF, "model.upcast_lmhead_output": True})
    )
    assert half.losses[0] != upcast.losses[0]
    assert abs(upcast.losses[0] - exact.losses[0]) < abs(half.losses[0] - exact.losses[0])
    for stage in ("dpo", "rm"):
        said = refused(rows, {**HALF, "model.upcast_lmhead_output": True, "stage.name": stage})
        assert any("model.upcast_lmhead_output" in line for line in said) == (stage == "rm")


@parameter("model.shift_attn")
def test_shifted_attention_acts_in_training_alone(train: Train, rows: Path) -> None:
    plain, shifted = (train({"model.shift_attn": on}) for on in (False, True))
    assert plain.losses[0] != pytest.approx(shifted.losses[0], abs=1e-6)
    with shifted.trainer.model.disable_adapter(), plain.trainer.model.disable_adapter():
        assert torch.equal(logits(plain.trainer.model), logits(shifted.trainer.model))
    for changes in ({"data.neat_packing": True}, {"stage.name": "dpo"}, {"stage.name": "kto"}):
        assert any(
            "model.shift_attn" in line for line in refused(rows, {"model.shift_attn": True, **changes})
        )


@parameter("model.mixture_of_depths")
def test_a_converted_model_trains_and_goes_on(train: Train, rows: Path) -> None:
    plain, done = (
        train(FULL),
        train({**FULL, "model.mixture_of_depths": "convert", "training.save_strategy": "no"}),
    )
    assert plain.losses[0] != done.losses[0]
    assert f"model.layers.1.{ROUTER}.weight" in done.changed() and done.logged("router_loss") == [1, 2, 3]
    done.trainer.save_final()
    name = {"model.model_name_or_path": str(done.out / "final"), "training.max_steps": 1}
    further = train({**FULL, **name, "model.mixture_of_depths": "load"})
    assert all(torch.equal(further.weights[0][key], weight) for key, weight in done.weights[-1].items())
    (problem,) = refused(rows, {**FULL, **name})
    assert "the model was converted: its layers have routers; set model.mixture_of_depths=load" in problem
    assert any("method=full" in line for line in refused(rows, {"model.mixture_of_depths": "convert"}))
    mixed = train({**FULL, **HALF, "model.mixture_of_depths": "convert"})  # autocast
    assert mixed.losses[0] == pytest.approx(done.losses[0], rel=0.02)
    first = done.log[0]
    assert LOSS_WEIGHT * first["router_loss"] < first["loss"]


@parameter("model.use_unsloth_gc")
def test_offloaded_checkpoints_give_the_same_bytes(train: Train) -> None:
    plain = train(FULL)
    with patch.object(checkpointing, "save_on_cpu", wraps=checkpointing.save_on_cpu) as kept:
        offloaded = train({**FULL, "model.use_unsloth_gc": True})
    assert kept.call_count > 0 and offloaded.losses == plain.losses
    assert all(torch.equal(offloaded.weights[-1][name], weight) for name, weight in plain.weights[-1].items())


EXPERTS = {
    "mixtral": MixtralConfig(num_local_experts=4, num_experts_per_tok=2, intermediate_size=32),
    "qwen2_moe": Qwen2MoeConfig(
        num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32, shared_expert_intermediate_size=32,
        intermediate_size=32, decoder_sparse_step=1, norm_topk_prob=True,
    ),
}  # fmt: skip


@pytest.fixture(params=EXPERTS)
def experts(
    request: pytest.FixtureRequest, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A tiny mixture of experts with the tokenizer of the tiny model."""
    monkeypatch.setenv("LLMF_CACHE", str(cache))
    shape = json.loads((ready() / "config.json").read_text())
    kept = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
            "bos_token_id", "eos_token_id", "pad_token_id")  # fmt: skip
    known = EXPERTS[request.param].to_dict() | {name: shape[name] for name in kept}
    known = {name: value for name, value in known.items() if name not in ("head_dim", "layer_types")}
    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_config(type(EXPERTS[request.param]).from_dict(known))
    shutil.copytree(ready(), tmp_path / "experts")
    (tmp_path / "experts" / "model.safetensors").unlink()
    network.save_pretrained(tmp_path / "experts")
    return tmp_path / "experts"


@parameter("model.moe_aux_loss_coef")
def test_the_balance_of_experts_is_a_part_of_the_loss(experts: Path, train: Train, rows: Path) -> None:
    named = {**FULL, "model.model_name_or_path": str(experts), "model.use_reentrant_gc": False,
             "training.per_device_train_batch_size": 1, "training.gradient_accumulation_steps": 2,
             "training.max_steps": 1}  # fmt: skip
    plain, weighed = train(named), train({**named, "model.moe_aux_loss_coef": 0.5})
    assert "aux_loss" not in plain.log[0]
    network = AutoModelForCausalLM.from_pretrained(experts).train()
    batches = [plain.trainer.train_dataset[row] for row in (0, 1)]
    with torch.no_grad():
        balances = [
            network(torch.tensor([row["input_ids"]]), output_router_logits=True).aux_loss for row in batches
        ]
    terms = [sum(label != -100 for label in row["labels"][1:]) for row in batches]
    share = sum(float(balance) * term for balance, term in zip(balances, terms, strict=True)) / sum(terms)
    assert weighed.losses[0] - plain.losses[0] == pytest.approx(0.5 * share, rel=1e-3)
    assert weighed.log[0]["aux_loss"] == pytest.approx(sum(map(float, balances)) / 2, rel=1e-4)
    routers = [name for name in plain.gradients[0] if "mlp.gate.weight" in name]
    assert routers and all(
        not torch.equal(plain.gradients[0][name], weighed.gradients[0][name]) for name in routers
    )
    reentrant = refused(rows, {**named, "model.moe_aux_loss_coef": 0.5, "model.use_reentrant_gc": True})
    assert any("set model.use_reentrant_gc=false" in line for line in reentrant)
    assert any("the model has no experts" in line for line in refused(rows, {"model.moe_aux_loss_coef": 0.0}))
