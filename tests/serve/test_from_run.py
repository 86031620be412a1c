"""`from_run=RUN`: what it stands for, that the user's words win, and what is no finished run."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.finished_runs import Finished
from support.own_model import tiny_model

from llmf_hydra.config import compose, from_run
from llmf_hydra.config.schema import Config
from llmf_hydra.errors import Refused
from llmf_hydra.serve.engine import Decoding, Request
from llmf_hydra.serve.loading import Loaded, load
from llmf_hydra.serve.open import open_engine

IDS = torch.tensor([[1, 5, 9, 300, 7]])
TRAINED = (
    "data.template=chatml",
    "generation.default_system=Be brief.",
    "data.val_size=0",
    "training.eval_strategy=no",
)


@pytest.fixture(scope="module")
def run(finished: Finished) -> Path:
    """A finished run of stage=dpo, with a template and a system message of its own."""
    return finished("dpo").out


def logits(loaded: Loaded) -> torch.Tensor:
    network: Any = loaded.network
    with torch.no_grad():
        return network(input_ids=IDS).logits


def test_a_run_of_an_adapter_brings_base_adapter_and_template(
    run: Path, config: Callable[..., Config]
) -> None:
    cfg = config("job=chat", f"from_run={run}")
    assert (cfg.stage.name, cfg.method.name, cfg.model.model_name_or_path) == ("dpo", "lora", "builtin:tiny")
    assert cfg.model.adapter_name_or_path == f"{run}/final" and cfg.job.from_run == str(run)
    loaded, plain = load(cfg), load(config("job=chat", "model=tiny"))
    assert loaded.name == "/".join(run.parts[-2:]) and not loaded.network.training
    assert not any(weight.requires_grad for weight in loaded.network.parameters())
    assert (logits(loaded) - logits(plain)).abs().max() > 1e-3


def test_an_adapter_is_merged_only_where_that_is_exact(run: Path, config: Callable[..., Config]) -> None:
    from peft import PeftModel

    half = compose.typed(compose.composed(["job=chat", f"from_run={run}", "model.infer_dtype=bfloat16"]))
    merged, beside = load(config("job=chat", f"from_run={run}")), load(half)
    assert not isinstance(merged.network, PeftModel) and isinstance(beside.network, PeftModel)
    assert {weight.dtype for weight in merged.network.parameters()} == {torch.float32}
    assert beside.network.get_base_model().dtype == torch.bfloat16  # pyright: ignore
    assert torch.allclose(logits(merged), logits(beside).float(), atol=0.1)


def test_the_cache_and_the_places_are_those_of_the_config(config: Callable[..., Config]) -> None:
    for use_cache in (True, False):
        engine = open_engine(
            config("job=chat", "model=tiny", f"model.use_cache={use_cache}".lower()), slots=1
        )
        seen: list[bool] = []
        engine.loaded.network.register_forward_pre_hook(
            lambda _, __, given, seen=seen: seen.append(given["use_cache"]), with_kwargs=True
        )
        engine.generate([Request([5, 6], Decoding(max_new_tokens=3))] * 2)
        engine.close()
        assert seen == [use_cache] * 6  # two answers, one after the other


def test_a_whole_model_is_the_runs_own(taught: Path, config: Callable[..., Config]) -> None:
    cfg = config("job=chat", f"from_run={taught}")
    assert (cfg.method.name, cfg.model.model_name_or_path) == ("full", f"{taught}/final")
    assert cfg.model.adapter_name_or_path is None


def test_what_the_user_sets_wins(
    run: Path, config: Callable[..., Config], tmp_path: Path, cache: Path
) -> None:
    mine = tiny_model(cache, tmp_path / "mine")
    cfg = config("job=api", f"from_run={run}", f"model.model_name_or_path={mine}", "data.template=llama2",
                 "stage=sft", "method=oft")  # fmt: skip
    assert (cfg.stage.name, cfg.method.name) == ("sft", "oft")
    assert (cfg.model.model_name_or_path, cfg.data.template) == (str(mine), "llama2")
    assert cfg.model.adapter_name_or_path == f"{run}/final"


def edited(run: Path, to: Path, **changed: Any) -> Path:
    """A copy of a run whose config differs."""
    import yaml

    shutil.copytree(run, to)
    tree = yaml.safe_load((to / "config.yaml").read_text())
    for key, value in changed.items():
        group, name = key.split("__")
        tree[group][name] = value
    (to / "config.yaml").write_text(yaml.safe_dump(tree))
    return to


def test_all_that_makes_the_model_is_taken(run: Path, tmp_path: Path) -> None:
    given = {
        "data__template": "chatml", "data__tool_format": "qwen", "generation__default_system": "Say it's so, now.",
        "quantization__quantization_bit": 4, "model__new_special_tokens": "<a>,<b>", "model__resize_vocab": True,
        "model__rope_scaling": "linear", "data__cutoff_len": 4096, "model__compute_dtype": "float32",
    }  # fmt: skip
    copy = edited(run, tmp_path / "with, comma", **given)
    cfg = compose.typed(compose.composed(["job=chat", f"from_run='{copy}'"]))
    found = {key: getattr(getattr(cfg, key.split("__")[0]), key.split("__")[1]) for key in given}
    assert found == given
    whole = compose.typed(compose.composed(["job=chat", f"from_run='{copy}'", "quantization=none"]))
    assert whole.quantization.quantization_bit is None
    (copy / "final" / "residual").mkdir()
    assert from_run.words(str(copy), {"data.template"})[4].count("residual") == 1
    full = edited(run, tmp_path / "full", method__name="full", model__mixture_of_depths="convert",
                  model__rope_scaling="linear")  # fmt: skip
    cfg = compose.typed(compose.composed(["job=chat", f"from_run={full}"]))
    assert (cfg.model.mixture_of_depths, cfg.model.rope_scaling) == ("load", None)


def test_folders_that_the_run_named_are_found_from_elsewhere(
    run: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_model(cache, tmp_path / "started" / "base")
    copy = edited(run, tmp_path / "copy", model__model_name_or_path="./base")
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**manifest, "cwd": str(tmp_path / "started")}))
    monkeypatch.chdir(tmp_path)
    cfg = compose.typed(compose.composed(["job=chat", "from_run=copy"]))
    assert cfg.model.model_name_or_path == str(tmp_path / "started" / "base")
    assert cfg.model.adapter_name_or_path == "copy/final"


def test_what_is_no_finished_training_is_refused(run: Path, tmp_path: Path) -> None:
    cases = {
        "gone": "there is no such folder",
        "study": "is the folder of a sweep",
        "empty": "is no folder of a run",
        "killed": "is not done (status killed)",
        "check": "is a run of job=check",
        "bare": "folder final is gone",
    }
    for name in list(cases)[1:]:
        (tmp_path / name).mkdir()
    (tmp_path / "study" / "study.json").write_text("{}")
    for name, changed in {"killed": {"status": "killed"}, "check": {"job": "check"}, "bare": {}}.items():
        manifest = json.loads((run / "manifest.json").read_text())
        (tmp_path / name / "manifest.json").write_text(json.dumps({**manifest, **changed}))
    for name, said in cases.items():
        with pytest.raises(Refused, match="from_run=") as refused:
            compose.composed(["job=chat", f"from_run={tmp_path / name}"])
        assert said in str(refused.value), name
    with pytest.raises(Refused, match=f"name {run}"):
        compose.composed(["job=chat", f"from_run={run}/final"])
