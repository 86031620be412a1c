"""Training from the real command line on the tiny model: what is learned, what is left on disk, what repeats."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from support.command_line import ROOT, Cli, losses, only_run
from support.finished_runs import Finished

SHORT = [
    "model=tiny",
    "training.max_steps=6",
    "training.logging_steps=2",
    "training.eval_steps=3",
    "training.save_steps=3",
    "training.learning_rate=0.01",
]


@pytest.mark.parametrize("words", [("sft",), ("dpo", "method=full")])
def test_a_run_learns_and_leaves_everything_behind(words: tuple[str, ...], finished: Finished) -> None:
    run = finished(*words)
    done, out = run.done, run.out
    names = {file.name for file in out.iterdir()}
    assert {
        "config.yaml",
        "manifest.json",
        "metrics.json",
        "log.jsonl",
        "data.json",
        "training_loss.png",
        "checkpoint-12",
        "final",
    } <= names
    assert losses(out)[-1] < losses(out)[0] - 0.02
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf8"))
    assert manifest["status"] == "done" and manifest["exit_code"] == 0
    assert manifest["objective"]["name"] == "eval_loss"
    assert manifest["objective"]["value"] == json.loads((out / "metrics.json").read_text())["eval_loss"]
    assert set(manifest["digests"]) == {"data", "tokenizer", "template", "model"} and all(
        manifest["digests"].values()
    )
    assert manifest["machine"]["packages"]["torch"] and manifest["seeds"]["seed"] == 42
    assert "step 12/12" in done.stdout and "Traceback" not in done.stderr + done.stdout


def test_runs_are_compared_by_the_mean_loss_of_datasets_that_are_evaluated_apart(
    cli: Cli, tmp_path: Path
) -> None:
    rows = (ROOT / "data" / "demo_instruct.jsonl").read_text(encoding="utf8").splitlines(keepends=True)
    for name, some in (("a", rows[:8]), ("b", rows[8:24])):
        (tmp_path / f"{name}.jsonl").write_text("".join(some), encoding="utf8")
    done = cli("stage=sft", *SHORT, "training.max_steps=3", "data.val_size=0", "data.eval_on_each_dataset=true",
               "data.eval_dataset='a.jsonl,b.jsonl'")  # fmt: skip
    assert done.returncode == 0, done.stderr
    out = only_run(tmp_path, "sft")
    found = json.loads((out / "metrics.json").read_text(encoding="utf8"))
    apart = [value for key, value in found.items() if key.startswith("eval_") and key.endswith("_loss")]
    objective = json.loads((out / "manifest.json").read_text(encoding="utf8"))["objective"]
    assert len(apart) == 2 and objective == {"name": "eval_loss", "value": pytest.approx(sum(apart) / 2)}


def test_plain_peft_loads_the_adapter(finished: Finished) -> None:
    import torch
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoTokenizer

    final = finished("sft").out / "final"
    model = AutoPeftModelForCausalLM.from_pretrained(final)
    tokens = AutoTokenizer.from_pretrained(final)("The sea", return_tensors="pt")
    with torch.no_grad():
        adapted = model(**tokens).logits
        with model.disable_adapter():
            bare = model(**tokens).logits
    assert (adapted - bare).abs().max() > 1e-3


def test_the_same_run_twice_is_the_same_to_the_bit(cli: Cli, tmp_path: Path) -> None:
    words = ["stage=dpo", *SHORT, "method.lora_dropout=0.1"]
    assert cli(*words).returncode == 0
    first = only_run(tmp_path, "dpo")
    before = {
        file: (file.stat().st_mtime_ns, file.read_bytes()) for file in first.rglob("*") if file.is_file()
    }
    assert cli(*words).returncode == 0
    second = next(out for out in (tmp_path / "outputs" / "dpo").iterdir() if out != first)
    assert losses(first) == losses(second)
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (first / "final" / name).read_bytes() == (second / "final" / name).read_bytes()
    assert {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in before} == before
    assert cli(*words, "training.seed=43").returncode == 0
    third = max((tmp_path / "outputs" / "dpo").iterdir(), key=lambda out: out.stat().st_mtime)
    assert losses(third) != losses(first)


def test_a_folder_given_by_hand_is_honoured_and_never_used_twice(cli: Cli, tmp_path: Path) -> None:
    words = ["stage=sft", "job=check", "model=tiny", "hydra.run.dir=mine"]
    assert cli(*words).returncode == 0
    assert json.loads((tmp_path / "mine" / "manifest.json").read_text())["status"] == "done"
    before = (tmp_path / "mine" / "config.yaml").read_bytes()
    again = cli(*words, "training.seed=7")
    assert again.returncode == 2 and "mine: holds a run already" in again.stderr
    assert (tmp_path / "mine" / "config.yaml").read_bytes() == before
    assert not (tmp_path / "outputs").exists()


def test_a_refused_config_leaves_no_folder(cli: Cli, tmp_path: Path) -> None:
    for words in (["data.dataset=missing"], ["method.lora_target=q_prj"], ["training.warmup_steps=-3"]):
        refused = cli("stage=sft", "model=tiny", *words)
        assert refused.returncode == 2 and "Traceback" not in refused.stderr
        assert words[0].split("=")[0] in refused.stderr
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "own").mkdir()
    assert cli("stage=sft", "model=tiny", "method.lora_target=q_prj", "hydra.run.dir=own").returncode == 2
    assert [*tmp_path.rglob("*")] == [tmp_path / "own"]  # the user's own empty folder stays


def test_a_full_run_trains_every_weight_and_saves_a_plain_model(finished: Finished, cache: Path) -> None:
    saved = load_file(finished("dpo", "method=full").out / "final" / "model.safetensors")
    (start,) = (cache / "models").glob("tiny-*")
    before = load_file(start / "model.safetensors")
    assert set(saved) == set(before)
    assert all((saved[name] != before[name]).any() for name in saved)


@pytest.mark.slow
def test_the_worker_reads_the_run_folder_and_nothing_else(
    cli: Cli, tmp_path: Path, environment: dict[str, str]
) -> None:
    """The config.yaml of a run, moved elsewhere, gives the same losses: it is the only truth."""
    assert cli("stage=sft", *SHORT).returncode == 0
    first = only_run(tmp_path, "sft")
    moved = tmp_path / "moved"
    moved.mkdir()
    (moved / "config.yaml").write_bytes((first / "config.yaml").read_bytes())
    manifest = json.loads((first / "manifest.json").read_text()) | {"status": "created"}
    (moved / "manifest.json").write_text(json.dumps(manifest))
    done = subprocess.run(
        [sys.executable, "-m", "llmf_hydra.worker", str(moved)],
        cwd=tmp_path,
        check=False,
        env={**environment, "PYTHONHASHSEED": "0", "TRAINING_SEED": "1"},
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert losses(moved) == losses(first)


def test_what_does_not_touch_the_rows_tokenizes_once(
    cli: Cli, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The cache of tokenized rows is found by a run with another beta, and not by one with another cutoff."""
    own = {"LLMF_CACHE": str(tmp_path_factory.mktemp("own_cache"))}
    found = {}
    for name, words in {
        "first": ["rlhf.pref_beta=0.1"],
        "beta": ["rlhf.pref_beta=0.2"],
        "cutoff": ["data.cutoff_len=64"],
    }.items():
        done = cli("job=check", "stage=dpo", "model=tiny", f"hydra.run.dir={name}", *words, env=own)
        assert done.returncode == 0, done.stderr
        (source,) = json.loads((tmp_path / name / "data.json").read_text(encoding="utf8"))["sources"]
        found[name] = (source["found"], source["digest"])
    assert found["first"][0] is False and found["cutoff"][0] is False
    assert found["beta"] == (True, found["first"][1])
    assert found["cutoff"][1] != found["first"][1]
