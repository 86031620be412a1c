"""What trials inherit from files: a study is refused where data or weights that one of them reads have changed."""

import json
from pathlib import Path

import pytest
from support.command_line import Cli
from support.own_model import change_a_bit, tiny_model

WORDS = ("-m", "job=check", "stage=dpo", "data.val_size=0", "training.eval_strategy=no", "data.dataset_dir=data",
         "hydra.sweep.dir=study")  # fmt: skip


@pytest.mark.slow
def test_each_value_of_what_is_swept_is_looked_at(cli: Cli, cache: Path, tmp_path: Path) -> None:
    assert cli("job=check", "stage=sft", "model=tiny", "hydra.run.dir=built").returncode == 0
    (tmp_path / "data").mkdir()
    for name in ("one", "two"):
        rows = [{"instruction": f"{name} {i}", "chosen": "yes", "rejected": "no"} for i in range(8)]
        (tmp_path / "data" / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf8")
    index = {name: {"file_name": f"{name}.jsonl", "ranking": True} for name in ("one", "two")}
    (tmp_path / "data" / "dataset_info.json").write_text(json.dumps(index), encoding="utf8")
    models = [tiny_model(cache, tmp_path / name) for name in ("a", "b")]
    words = [*WORDS, "data.dataset=one,two", "model.model_name_or_path=./a,./b"]
    assert cli(*words).returncode == 0
    before = (tmp_path / "study" / "sweep.json").read_bytes()

    file = tmp_path / "data" / "two.jsonl"
    text = file.read_text(encoding="utf8")
    file.write_text(text.replace("yes", "YES", 1), encoding="utf8")
    data = cli(*words)
    assert data.returncode == 2 and "another state of two: two.jsonl;" in data.stderr, data.stderr
    file.write_text(text, encoding="utf8")

    weights = models[1] / "model.safetensors"
    original = change_a_bit(weights)
    changed = cli(*words)
    assert changed.returncode == 2 and "Traceback" not in changed.stderr
    assert "another state of the weights of model.model_name_or_path=./b;" in changed.stderr, changed.stderr
    weights.write_bytes(original)  # the same again, with another time of change
    assert cli(*words).returncode == 0
    assert (tmp_path / "study" / "sweep.json").read_bytes() == before
