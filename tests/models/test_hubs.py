"""Models of a hub that answers on the loopback: what is fetched, with which token, and what is told where it fails."""

import json
import shutil
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from support.adapter_runs import logits, merged, save
from support.command_line import Cli
from support.hub_server import GATED, PRIVATE, TOKEN, Hub, serving
from support.stage_runs import SGD, composed

from llmf_hydra import refusals
from llmf_hydra.config.groups.model import ModelConfig
from llmf_hydra.errors import Refused
from llmf_hydra.models.adapters import put_on
from llmf_hydra.models.builtin import tiny
from llmf_hydra.models.load import load_model, load_tokenizer
from llmf_hydra.models.sources import hubs

WRONG = "hf_atokenthatisnotvalid"
needs_modelscope = pytest.mark.skipif(
    find_spec("modelscope_hub") is None, reason="needs modelscope: pip install 'llmf_hydra[modelscope]'"
)


@pytest.fixture
def hub(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("LLMF_CACHE", str(cache))
    base, other = tiny.ready(), tmp_path / "adapter"
    save(other, base, 1)
    with serving(
        {
            "org/tiny": {"main": base},
            "org/lora": {"main": other},
            PRIVATE: {"main": base, "v2": base},
            GATED: {"main": base},
        }
    ) as served:
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", served.url)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        yield served


def named(tmp_path: Path, name: str, **settings: Any) -> ModelConfig:
    """A model of a hub with a cache of its own."""
    settings = {"use_modelscope_hub": False, "use_openmind_hub": False, **settings}
    return ModelConfig(model_name_or_path=name, cache_dir=str(tmp_path / "fetched"), **settings)


def told(model: ModelConfig) -> str:
    with pytest.raises(Refused) as refused:
        load_tokenizer(model)
    text = str(refused.value)
    assert "\n" not in text and WRONG not in text and TOKEN not in text
    return text


def test_settings_are_fetched_before_weights_and_each_once(hub: Hub, tmp_path: Path) -> None:
    model = named(tmp_path, "org/tiny")
    assert load_tokenizer(model).vocab_size == 1024
    assert not any("safetensors" in path for path in hub.asked) and not list(
        (tmp_path / "fetched").rglob("*.safetensors")
    )
    loaded = load_model(model, torch.float32)
    assert torch.equal(logits(loaded), logits(merged()))
    assert loaded.config._name_or_path == loaded.name_or_path == "org/tiny", "an adapter's base is called so"
    count = len(hub.asked)
    load_model(model, torch.float32)
    assert len(hub.asked) == count
    assert not hub.tokens


def test_a_token_opens_a_private_model(hub: Hub, tmp_path: Path) -> None:
    missing = "model.model_name_or_path=org/private: the Hugging Face hub has no model of that name for you; "
    assert (
        told(named(tmp_path, PRIVATE)) == f"{missing}check the name; a private model needs model.hf_hub_token"
    )
    bad = "model.hf_hub_token: the Hugging Face hub does not accept this token"
    assert bad in told(named(tmp_path, PRIVATE, hf_hub_token=WRONG))
    assert load_tokenizer(named(tmp_path, PRIVATE, hf_hub_token=TOKEN)).vocab_size == 1024
    assert TOKEN in hub.tokens
    assert not [
        file for file in tmp_path.rglob("*") if file.is_file() and TOKEN.encode() in file.read_bytes()
    ]
    assert "is gated on the Hugging Face hub; ask for access" in told(named(tmp_path, GATED))


def test_a_revision_is_named_by_its_key(hub: Hub, tmp_path: Path) -> None:
    owned = {"hf_hub_token": TOKEN}
    assert load_tokenizer(named(tmp_path, PRIVATE, model_revision="v2", **owned)).vocab_size == 1024
    wrong = told(named(tmp_path, PRIVATE, model_revision="v3", **owned))
    assert wrong.startswith(
        "model.model_revision=v3: org/private on the Hugging Face hub has no such revision"
    )


def test_without_a_network_the_cache_answers_or_one_sentence(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_model(named(tmp_path, "org/tiny"), torch.float32)
    hubs._snapshot.cache_clear()
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    began = time.monotonic()
    assert load_tokenizer(named(tmp_path, "org/tiny")).vocab_size == 1024
    assert "(http://127.0.0.1:9) does not answer, and the cache has no such model" in told(
        named(tmp_path, "org/none")
    )
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert load_tokenizer(named(tmp_path, "org/tiny")).vocab_size == 1024
    asked = len(hub.asked)
    assert "HF_HUB_OFFLINE=1 keeps the network out; unset HF_HUB_OFFLINE" in told(named(tmp_path, "gpt2"))
    assert len(hub.asked) == asked and time.monotonic() - began < 20


def test_adapters_come_from_the_hub_too(hub: Hub, tmp_path: Path) -> None:
    model = named(tmp_path, "builtin:tiny")
    whole = put_on(load_model(model, torch.float32), ["org/lora"], "model.adapter_name_or_path", model)
    assert torch.equal(logits(whole), logits(merged(tmp_path / "adapter")))
    with pytest.raises(
        Refused, match=r"^model\.adapter_name_or_path=org/none: the Hugging Face hub has no model"
    ):
        hubs.adapter_folder("org/none", model, "model.adapter_name_or_path")


def test_a_quantized_model_of_a_hub_is_told_once_its_config_is_there(hub: Hub, tmp_path: Path) -> None:
    from llmf_hydra.jobs import assemble

    folder = tmp_path / "gptq"
    shutil.copytree(tiny.ready(), folder)
    known = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps({**known, "quantization_config": {"quant_method": "gptq"}})
    )
    hub.repositories["org/gptq"] = {"main": folder}
    cfg = composed("stage=sft", *SGD)
    cfg.model = named(tmp_path, "org/gptq")
    with pytest.raises(Refused, match="org/gptq: is quantized with gptq and needs the package gptqmodel"):
        assemble.load_inputs(cfg)


def test_a_run_trains_a_private_model_and_leaves_no_token(hub: Hub, cli: Cli, tmp_path: Path) -> None:
    words = ["stage=dpo", *SGD, "model=path", f"model.model_name_or_path={PRIVATE}", "model.compute_dtype=float32",
             "model.cache_dir=fetched", "hydra.run.dir=run"]  # fmt: skip
    env = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0"}
    done = cli(*words, f"model.hf_hub_token={TOKEN}", env=env)
    assert done.returncode == 0, done.stderr
    left = [file for file in (tmp_path / "run").rglob("*") if file.is_file()]
    assert left and not any(TOKEN.encode() in file.read_bytes() for file in left)
    assert TOKEN not in done.stdout + done.stderr
    assert (
        '"base_model_name_or_path": "org/private"' in (tmp_path / "run/final/adapter_config.json").read_text()
    )
    done = cli(
        *words, f"model.hf_hub_token={WRONG}", "model.model_revision=v2", "hydra.run.dir=none", env=env
    )
    assert done.returncode == 2 and "does not accept this token" in done.stderr and WRONG not in done.stderr
    assert not (tmp_path / "none").exists() and "Traceback" not in done.stderr


@needs_modelscope
def test_modelscope_is_asked_where_it_is_meant(
    hub: Hub, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELSCOPE_HOME", str(tmp_path / "home"))
    meant = {"use_modelscope_hub": True}
    loaded = load_model(named(tmp_path, "org/tiny", **meant), torch.float32)
    assert torch.equal(logits(loaded), logits(merged()))
    assert hub.asked and all(path.startswith("/api/v1/") for path in hub.asked)
    missing = "ModelScope has no model of that name for you; check the name; a private model needs model.ms_hub_token"
    assert missing in told(named(tmp_path, PRIVATE, **meant))
    assert load_tokenizer(named(tmp_path, PRIVATE, ms_hub_token=TOKEN, **meant)).vocab_size == 1024
    assert TOKEN in hub.tokens
    assert not [
        file for file in tmp_path.rglob("*") if file.is_file() and TOKEN.encode() in file.read_bytes()
    ]
    wrong = told(named(tmp_path, "org/tiny", model_revision="v9", **meant))
    assert wrong.startswith("model.model_revision=v9: ModelScope has no org/tiny, or none of this revision")
    assert TOKEN not in "".join(capfd.readouterr())


def test_modelers_is_asked_where_it_is_meant(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its library speaks https alone, so a module that takes its place says what it was asked."""
    (tmp_path / "openmind_hub.py").write_text(
        "asked = []\n"
        "def snapshot_download(repo_id, *, revision, cache_dir, token, allow_patterns, ignore_patterns):\n"
        "    asked.append((repo_id, revision, cache_dir, token))\n"
        f"    return {str(tiny.ready())!r}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "openmind_hub", raising=False)
    model = named(tmp_path, "org/tiny", use_openmind_hub=True, om_hub_token=TOKEN)
    assert load_tokenizer(model).vocab_size == 1024
    import openmind_hub

    assert openmind_hub.asked[0] == ("org/tiny", "main", str(tmp_path / "fetched"), TOKEN)
    assert not hub.asked


def test_the_other_hubs_need_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    found = find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name.endswith("_hub") else found(name)
    )
    for hub, extra in (("modelscope", "modelscope"), ("openmind", "openmind")):
        words = ["stage=sft", "model=path", "model.model_name_or_path=org/tiny", f"model.use_{hub}_hub=true"]
        text = "\n".join(map(str, refusals.problems(composed(*words, model=None), {})))
        assert f"model.use_{hub}_hub: needs the package {hub}_hub; pip install 'llmf_hydra[{extra}]'" in text
        assert not refusals.problems(composed("stage=sft", f"model.use_{hub}_hub=true"), {}), (
            "nothing is of a hub"
        )


def test_datasets_come_from_the_hub_that_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    from llmf_hydra.data.sources import dataset_info, resolve

    cfg = composed("stage=sft", "data.dataset=org/rows")
    table: dict[str, Any] = {"both": {"hf_hub_url": "a/b", "ms_hub_url": "c/d", "om_hub_url": "e/f"}}
    cfg.data.dataset_dir = table
    for variable, kind, place in (
        ("NONE", dataset_info.HUGGING_FACE, "a/b"),
        ("USE_MODELSCOPE_HUB", dataset_info.MODELSCOPE, "c/d"),
        ("USE_OPENMIND_HUB", dataset_info.MODELERS, "e/f"),
    ):
        with monkeypatch.context() as within:
            within.setenv(variable, "1")
            bare, both = resolve.resolve(cfg.data, "org/rows,both", "dataset")
            assert (bare.hub, bare.hub_kind, both.hub, both.hub_kind) == ("org/rows", kind, place, kind)
