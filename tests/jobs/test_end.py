"""The end of a run: what is printed, the model card, and the files in `final/`."""

import contextlib
import io
import json
import re
import shlex
import stat
from pathlib import Path

import pytest
import yaml
from support.command_line import Cli
from support.finished_runs import Finished, FinishedRun
from support.stage_runs import composed

from llmf_hydra.config.schema import Config
from llmf_hydra.jobs.model_card import card
from llmf_hydra.jobs.summary import changes, closing

RUNS = (("sft",), ("rm",), ("dpo", "method=full"))
PICKLED = (".bin", ".pt", ".pth", ".pkl")


@pytest.fixture
def runs(finished: Finished) -> list[FinishedRun]:
    return [finished(*words) for words in RUNS]


def test_the_end_names_the_folder_the_change_of_metrics_and_what_comes_next(
    runs: list[FinishedRun], cli: Cli, tmp_path: Path
) -> None:
    for run in runs:
        folder = str(run.out.relative_to(run.cwd))
        lines = run.done.stdout.splitlines()
        assert lines[0].endswith(f" -> {folder}")
        end = lines[lines.index(f"done: {folder}") :]
        text = "\n".join(end)
        assert re.search(r"\n  loss \d+\.\d+ \(step 2\) -> \d+\.\d+ \(step 12\)", text), text
        assert re.search(r"\n  eval_loss \d+\.\d+ \(step 6\) -> \d+\.\d+ \(step 12\)", text), text
        assert f"{folder}/final holds the " in text
    rm, sft = runs[1], runs[0]
    assert "llmf score FILE.jsonl --model outputs/rm/" in rm.done.stdout
    commands = {
        line.split("python -m llmf_hydra")[0].strip(): shlex.split(line)[
            shlex.split(line).index("llmf_hydra") + 1 :
        ]
        for line in sft.done.stdout.splitlines()
        if "python -m llmf_hydra" in line
    }
    assert set(commands) == {"talk to it", "see the rows", "train it on", "export it"}
    assert commands["talk to it"] == ["job=chat", f"from_run={sft.out.relative_to(sft.cwd)}"]
    shown = cli("--cfg", "job", *commands["talk to it"], cwd=sft.cwd)
    assert "model_name_or_path: builtin:tiny" in shown.stdout, shown.stderr
    seen = cli(*commands["see the rows"], cwd=sft.cwd)
    assert seen.returncode == 0 and "»" in seen.stdout, seen.stderr
    on = cli(*commands["train it on"], "job=check", cwd=sft.cwd)
    assert on.returncode == 0, on.stderr


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["method=oft"], {"method=oft"}),
        (["method=full", "optimizer=galore"], {"method=full", "optimizer=galore"}),
        (["method=full", "model.mixture_of_depths=convert"], {"model.mixture_of_depths=load"}),
        (["method=llama_pro", "method.freeze_trainable_layers=1"],
         {"method=llama_pro", "method.freeze_trainable_layers=1"}),
        (["model.rope_scaling=linear", "data.cutoff_len=4096"],
         {"model.rope_scaling=linear", "data.cutoff_len=4096"}),
    ],
)  # fmt: skip
def test_the_next_run_trains_what_this_one_did(tmp_path: Path, words: list[str], wanted: set[str]) -> None:
    end = closing(composed("stage=sft", *words), tmp_path, ["llmf-hydra", *words], [])
    (on,) = (shlex.split(line) for line in end if "train it on" in line)
    assert wanted <= set(on)


def test_an_export_takes_the_whole_base(tmp_path: Path) -> None:
    for words, wanted in (
        (["method=qlora"], ["quantization=none"]),
        (["method=lora"], []),
    ):
        end = closing(composed("stage=sft", *words), tmp_path / "run", ["llmf-hydra", *words], [])
        (line,) = (shlex.split(line) for line in end if "export it" in line)
        assert [word for word in line if word.startswith("quantization")] == wanted
        assert "run/exported" in line[-1]
    end = closing(composed("stage=sft", "method=full", "model.mixture_of_depths=convert"), tmp_path, [], [])
    assert not any("export it" in line for line in end)


def test_final_holds_no_pickle_and_every_model_can_be_read_by_all(runs: list[FinishedRun]) -> None:
    for run in runs:
        files = [file for file in (run.out / "final").iterdir() if file.is_file()]
        assert [file.name for file in files if file.suffix in PICKLED] == []
        checkpoints = list(run.out.glob("checkpoint-*"))
        assert checkpoints and not [folder for folder in checkpoints if (folder / "README.md").exists()]
        files += [file for folder in checkpoints for file in folder.iterdir()]
        modes = {f"{file.parent.name}/{file.name}": oct(stat.S_IMODE(file.stat().st_mode)) for file in files}
        assert set(modes.values()) == {oct(stat.S_IMODE((run.out / "config.yaml").stat().st_mode))}, modes


def test_the_model_card_is_the_runs_own_and_its_code_loads_the_model(
    runs: list[FinishedRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    for run, library, tag in zip(runs, ("peft", "peft", "transformers"), ("sft", "rm", "dpo"), strict=True):
        text = (run.out / "final" / "README.md").read_text(encoding="utf8")
        header = yaml.safe_load(text.split("---")[1])
        assert header["library_name"] == library and {tag, "llmf_hydra"} <= set(header["tags"])
        assert "base_model" not in header and "license" not in header  # the tiny model is on no hub
        assert "None" not in text and "More Information Needed" not in text
        assert "| `training.learning_rate` | 0.01 |" in text and "| `eval_loss` |" in text
        assert "`builtin:tiny`" in text and "for 12 steps" in text
        (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        monkeypatch.chdir(run.out / "final")
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, {})
        if tag == "rm":
            float(printed.getvalue())
        else:
            assert printed.getvalue().strip()


def test_a_card_names_models_and_data_that_are_on_a_hub() -> None:
    cfg = Config()
    cfg.method.name, cfg.stage.name, cfg.data.dataset = "lora", "dpo", "org/rows,mine.jsonl"
    cfg.model.adapter_name_or_path = "first,second"
    for model, base in {
        "org/model": "org/model",
        "builtin:smollm2": "HuggingFaceTB/SmolLM2-135M-Instruct",
    }.items():
        cfg.model.model_name_or_path = model
        text = card(cfg, 3, [], chats=True)
        header = yaml.safe_load(text.split("---")[1])
        assert (header["base_model"], header["datasets"]) == (base, ["org/rows"])
        assert "| `method.lora_alpha` | 16 |" in text and "with the merged adapters `first`" in text
        assert "PeftModel.from_pretrained(model, 'first').merge_and_unload()" in text


def test_a_metric_is_told_from_its_first_to_its_last_value() -> None:
    history = [
        {"step": 1, "loss": 2.0, "grad_norm": 1.0},
        {"step": 2, "eval_loss": 1.5, "eval_a_loss": 1.0},
        {"step": 3, "loss": 1.0},
        {"step": 3, "train_loss": 1.5},
    ]
    assert [str(change) for change in changes(history)] == [
        "loss 2.0000 (step 1) -> 1.0000 (step 3)",
        "eval_loss 1.5000 (step 2)",
        "eval_a_loss 1.0000 (step 2)",
    ]


def test_the_first_line_comes_from_the_launcher(runs: list[FinishedRun]) -> None:
    assert runs[0].done.stdout.splitlines()[0].startswith("sft, lora of builtin:tiny on demo_instruct -> ")
    assert json.loads((runs[0].out / "manifest.json").read_text())["status"] == "done"
