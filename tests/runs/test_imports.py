"""What a worker leaves out: bitsandbytes where no weights are quantized, and hqq where it quantizes none."""

import json
from pathlib import Path

from support.stage_runs import composed

from llmf_hydra.config.schema import Config
from llmf_hydra.optional import WITHOUT
from llmf_hydra.runs import imports, processes, surroundings
from llmf_hydra.runs.imports import BITSANDBYTES, HQQ


def _left_out(**models: object) -> bool:
    cfg = Config()
    for key, value in {"model__model_name_or_path": "builtin:tiny", **models}.items():
        group, name = key.split("__")
        setattr(getattr(cfg, group), name, value)
    return BITSANDBYTES in imports.environment(cfg)[WITHOUT].split(",")


def test_bitsandbytes_is_left_out_where_all_weights_are_surely_whole(tmp_path: Path) -> None:
    whole, quantized = tmp_path / "whole", tmp_path / "quantized"
    for folder, config in ((whole, {}), (quantized, {"quantization_config": {"load_in_4bit": True}})):
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config), encoding="utf8")
    assert _left_out() and _left_out(model__model_name_or_path=str(whole), rlhf__ref_model=str(whole))
    assert not _left_out(model__model_name_or_path=str(quantized))
    assert not _left_out(rlhf__reward_model=str(quantized))
    assert not _left_out(model__model_name_or_path="meta-llama/Llama-3.2-1B")  # known once it is loaded
    for key in ("quantization__quantization_bit", "rlhf__ref_model_quantization_bit"):
        assert not _left_out(**{key: 4})


def test_hqq_is_left_out_where_it_quantizes_nothing() -> None:
    plain, four = composed("model=tiny"), composed("model=tiny", "quantization=bnb4")
    assert imports.left_out(plain) == [BITSANDBYTES, HQQ] and imports.left_out(four) == [HQQ]
    assert imports.environment(composed("model=tiny", "quantization=hqq4")) == {}


def test_a_worker_is_forked_only_where_the_same_is_left_out() -> None:
    cfg = composed("model=tiny")
    plain = processes.environment(cfg)
    cfg.quantization.quantization_bit = 4
    quantized = processes.environment(cfg)
    assert surroundings.fingerprint(plain) != surroundings.fingerprint(quantized)
