"""`llmf expand` and `method=llama_pro`: the expanded model gives the same logits, and only new blocks are trained."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.command_line import Cli
from transformers import AutoModelForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM, MixtralConfig

from llmf_hydra.config.groups.method import MethodConfig
from llmf_hydra.errors import Refused
from llmf_hydra.jobs.expand import expand
from llmf_hydra.methods import freeze, lora
from llmf_hydra.models.architecture.fits import DEPTHS_FIELD
from llmf_hydra.models.builtin import tiny

SHAPE = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2,
         "num_key_value_heads": 2, "vocab_size": 1024, "head_dim": 8}  # fmt: skip
SHORT = ["stage=sft", "training.max_steps=2", "training.eval_strategy=no", "data.val_size=0", "data.max_samples=16",
         "training.plot_loss=false", "training.learning_rate=0.05"]  # fmt: skip


def logits(folder: Path) -> torch.Tensor:
    ids = torch.arange(20, 40)[None]
    with torch.no_grad():
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()(input_ids=ids).logits


@pytest.fixture
def saved(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`saved(config)` writes a model of four layers with the tiny model's tokenizer."""
    from transformers import AutoTokenizer

    monkeypatch.setenv("LLMF_CACHE", str(cache))

    def write(config: Any) -> Path:
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "base")
        AutoTokenizer.from_pretrained(tiny.ready()).save_pretrained(tmp_path / "base")
        return tmp_path / "base"

    return write


CONFIGS = {
    "llama": LlamaConfig(**SHAPE, attention_bias=True, mlp_bias=True),
    "gemma3": Gemma3TextConfig(**SHAPE, sliding_window=8,
                               layer_types=["sliding_attention"] * 3 + ["full_attention"]),
    "mixtral": MixtralConfig(**SHAPE, num_local_experts=2),
}  # fmt: skip


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_expanded_model_gives_the_same_logits(kind: str, saved: Any, tmp_path: Path) -> None:
    base, out = saved(CONFIGS[kind]), tmp_path / "pro"
    assert expand(str(base), 2, out) == ([2, 5], 6)
    torch.testing.assert_close(logits(out), logits(base), atol=1e-5, rtol=1e-5)
    model: Any = AutoModelForCausalLM.from_pretrained(out)
    given = MethodConfig(name="freeze", use_llama_pro=True)
    names = {
        name
        for name, weight in freeze.apply(model, given, pure=False).named_parameters()
        if weight.requires_grad
    }
    assert {name.split(".")[2] for name in names} == {"2", "5"} and all(
        n.startswith("model.layers.") for n in names
    )
    if kind == "gemma3":
        assert model.config.layer_types == ["sliding_attention"] * 4 + ["full_attention"] * 2
    adapted = lora.apply(model, MethodConfig(use_llama_pro=True), pure=False)
    layers = {
        name.split(".layers.")[1].split(".")[0] for name, _ in adapted.named_parameters() if "lora_A" in name
    }
    assert layers == {"2", "5"}


def test_the_layers_of_a_model_that_another_tool_expanded() -> None:
    """Each last of n equal groups, as LLaMA-Factory counts; what doesn't divide is refused."""
    given = {"name": "freeze", "use_llama_pro": True}
    for count, expected in ((1, {3}), (2, {1, 3}), (4, {0, 1, 2, 3})):
        method = MethodConfig(**given, freeze_trainable_layers=count)  # pyright: ignore
        model = freeze.apply(LlamaForCausalLM(LlamaConfig(**SHAPE)), method, pure=False)
        names = [name for name, weight in model.named_parameters() if weight.requires_grad]
        assert {int(name.split(".")[2]) for name in names} == expected
    with pytest.raises(Refused, match=r"freeze_trainable_layers=3: doesn't divide the 4 layers"):
        freeze.apply(
            LlamaForCausalLM(LlamaConfig(**SHAPE)),
            MethodConfig(**given, freeze_trainable_layers=3),
            pure=False,
        )  # pyright: ignore
    with pytest.raises(
        Refused, match="the model's config doesn't say it; expand the model with `llmf expand`"
    ):
        lora.apply(LlamaForCausalLM(LlamaConfig(**SHAPE)), MethodConfig(use_llama_pro=True), pure=False)


def test_a_number_of_layers_that_were_not_added_is_refused(saved: Any, tmp_path: Path) -> None:
    expand(str(saved(CONFIGS["llama"])), 2, tmp_path / "pro")
    model: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "pro")
    method = MethodConfig(name="freeze", use_llama_pro=True, freeze_trainable_layers=3)
    with pytest.raises(
        Refused, match=r"means the layers 1, 3, 5, and `llmf expand` has added 2, 5; set method.*=2"
    ):
        freeze.apply(model, method, pure=False)


def test_code_that_comes_with_a_model_is_not_run_and_routers_are_not_lost(
    saved: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = Path(saved(CONFIGS["llama"]))
    own, routed = (shutil.copytree(folder, tmp_path / name) for name in ("own", "routed"))
    known = json.loads((folder / "config.json").read_text())
    auto = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}
    (own / "config.json").write_text(json.dumps({**known, "model_type": "mine", "auto_map": auto}))
    (own / "code.py").write_text("raise SystemExit(77)")
    with pytest.raises(Refused, match="comes with code of its own, which is not run"):
        expand(str(own), 1, tmp_path / "new")
    assert "[y/N]" not in "".join(capfd.readouterr())
    (routed / "config.json").write_text(json.dumps({**known, DEPTHS_FIELD: {"capacity": 0.125, "every": 2}}))
    with pytest.raises(Refused, match="whose routers a copied layer would not have"):
        expand(str(routed), 1, tmp_path / "new")
    with pytest.raises(Refused, match="--out=/proc/new: cannot be written: "):
        expand(str(folder), 1, Path("/proc/new"))
    assert not (tmp_path / "new").exists()


def test_only_the_new_blocks_change(
    cli: Cli, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMF_CACHE", str(cache))
    made = cli("expand", "tiny", "--blocks", "1", "--out", "pro")
    assert made.returncode == 0, made.stderr
    assert "pro: 3 layers; new, and without effect yet, counted from 0: 2" in made.stdout
    assert "WARNING" not in made.stderr
    assert torch.equal(logits(tmp_path / "pro"), logits(tiny.ready()))
    words = ["method=llama_pro", "model.model_name_or_path=./pro", "method.freeze_trainable_layers=1"]
    done = cli(*SHORT, *words, "hydra.run.dir=out")
    assert done.returncode == 0, done.stderr
    before, after = (
        load_file(folder / "model.safetensors") for folder in (tmp_path / "pro", tmp_path / "out" / "final")
    )
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(name.startswith("model.layers.2.") for name in changed)
    assert {"model.layers.2.mlp.down_proj.weight", "model.layers.2.self_attn.o_proj.weight"} <= changed
    again = cli("expand", "tiny", "--blocks", "1", "--out", "pro")
    assert again.returncode == 2 and "--out=pro: is there already; name a new folder" in again.stderr
    wrong = cli(*SHORT, *words[:2], "hydra.run.dir=wrong")
    assert wrong.returncode == 2 and "freeze_trainable_layers=2: doesn't divide the 3 layers" in wrong.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tiny", "--blocks", "3"], "--blocks=3: doesn't divide the 2 layers of builtin:tiny; take one of 1, 2"),
        (["tiny", "--blocks", "0"], "--blocks=0: must be >= 1"),
        (["./nowhere", "--blocks", "1"], "MODEL=./nowhere: there is no such folder"),
        (["./empty", "--blocks", "1"], "MODEL=./empty: the folder holds no config.json"),
    ],
)  # fmt: skip
def test_what_cannot_be_expanded_is_refused(cli: Cli, tmp_path: Path, words: list[str], said: str) -> None:
    (tmp_path / "empty").mkdir()
    done = cli("expand", *words, "--out", "pro")
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["empty"], "nothing is left behind"
