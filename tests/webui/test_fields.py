"""What fields of the page may say, and what becomes of an edited config: no page is needed for that."""

from pathlib import Path

import pytest

from llmf_hydra.errors import Refused
from llmf_hydra.webui.composed import edits
from llmf_hydra.webui.fields import Place, merged, new_name, run_folder, words_of

HERE = Place(Path("/home/me/mine"), (Path("/models"),))


@pytest.mark.parametrize(
    "text",
    [
        "data.dataset=/etc/passwd",
        "data.dataset=../secret.jsonl",
        "data.dataset='a,/etc/passwd'",
        "data.dataset=a/../../b",
        "export.export_dir=~/x",
        "model.model_name_or_path=file:///etc",
        "model.model_name_or_path=/models/../etc",
        "model.device_map={a:/etc}",
        "data.dataset=${oc.env:HOME}/x",
        "hydra.run.dir=/tmp/x",
        "hydra.run.dir=outputs/../../x",
        "+hydra.callbacks.mine._target_=os.system",
        "hydra/launcher=joblib",
        "--config-dir=/etc",
        "-m",
        "stage",
        "data.dataset='unclosed",
    ],
)
def test_a_field_names_nothing_outside_and_gives_no_flags(text: str) -> None:
    with pytest.raises(Refused):
        words_of(text, HERE)


def test_what_a_field_may_say() -> None:
    text = """stage=dpo rlhf.pref_beta=0.05,0.1   # a comment
    data.dataset='demo_instruct,my/own.jsonl' model.model_name_or_path=/models/llama
    rlhf.reward_model=https://host:80/score tracking.run_name="two words" hydra.run.dir=outputs/mine
    model.model_name_or_path=/home/me/mine/model model.model_name_or_path=builtin:tiny hydra.sweeper.n_trials=4"""
    words = words_of(text, HERE)
    assert words[:3] == ["stage=dpo", "rlhf.pref_beta=0.05,0.1", "data.dataset=demo_instruct,my/own.jsonl"]
    assert "tracking.run_name=two words" in words and len(words) == 10
    assert merged(["stage=sft", "a=1"], ["+a=2", "b=3"]) == ["stage=sft", "+a=2", "b=3"]


@pytest.mark.parametrize(
    "name", [None, "", "/etc", "../x", "outputs/../..", "elsewhere", "outputs/none", "outputs/\0"]
)
def test_a_run_is_a_folder_below_outputs_with_a_manifest(tmp_path: Path, name: str | None) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "manifest.json").touch()
    with pytest.raises(Refused):
        run_folder(name, Place(tmp_path))
    (tmp_path / "outputs" / "a").mkdir(parents=True)
    (tmp_path / "outputs" / "a" / "manifest.json").touch()
    assert run_folder("outputs/a", Place(tmp_path)) == tmp_path / "outputs" / "a"


def test_the_name_of_a_folder_is_one() -> None:
    assert new_name(" my-model_1.5 ") == "my-model_1.5"
    for name in ("", "..", ".x", "a/b", "/a", "a b", "x" * 101):
        with pytest.raises(Refused):
            new_name(name)


def test_edits_of_a_config_become_words() -> None:
    was = "stage:\n  name: sft\ntraining:\n  learning_rate: 5.0e-05\n  bf16: null\ndata:\n  dataset: a\n"
    now = was.replace("5.0e-05", "1e-4").replace("bf16: null", "bf16: true").replace("name: sft", "name: dpo")
    assert edits(was, was) == []
    assert edits(was, now) == ["stage=dpo", "training.learning_rate=0.0001", "training.bf16=true"]
    assert edits(was, was.replace("dataset: a", "dataset: a, b")) == ["data.dataset='a, b'"]
    assert edits(was, was + "  datasett: c\n") == [
        "data.datasett=c"
    ]  # refused by the check, with the nearest name
    for wrong in ("a: [", was.replace("  bf16: null\n", ""), "- a list"):
        with pytest.raises(Refused):
            edits(was, wrong)
