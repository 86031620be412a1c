"""`llmf runs`: the best first where they compare, JSON and CSV, and an answer at once for a thousand runs."""

import csv
import io
import json
import time
from pathlib import Path
from typing import Any

from support.command_line import Cli
from support.finished_runs import Finished

from llmf_hydra.runs import listing

MANY, SECONDS = 1000, 2.0  # generous: it takes a third of that


def made(folder: Path, name: str, **values: Any) -> Path:
    known = {"status": "done", "job": "train", "stage": "sft", "method": "lora", "model": "builtin:tiny",
             "created": "2026-01-01T10:00:00+00:00", "direction": "minimize"}  # fmt: skip
    (folder / name).mkdir(parents=True)
    (folder / name / "manifest.json").write_text(json.dumps(known | values), encoding="utf8")
    return folder / name


def listed(cli: Cli, *words: str) -> str:
    done = cli("runs", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_best_of_each_objective_stand_first(cli: Cli, tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    for name, value in (("a", 2.0), ("b", 0.5), ("c", 1.0), ("n", float("nan"))):
        made(outputs, name, objective={"name": "eval_loss", "value": value})
    for name, value in (("d", 0.7), ("e", 0.9)):
        objective = {"name": "eval_accuracy", "value": value}
        made(outputs, name, objective=objective, direction="maximize", stage="rm")
    made(outputs, "f", status="failed")
    text = listed(cli, "--best")
    assert "sft by eval_loss, lower is better" in text and "rm by eval_accuracy, higher is better" in text
    assert "2 groups: runs of another stage or objective don't compare" in text
    assert "1 run without an objective left out" in text
    shown = [line.split()[-1] for line in text.splitlines() if line.startswith("2026")]
    assert shown == [f"outputs/{name}" for name in "edbcan"]
    first = [line.split()[-1] for line in listed(cli, "--best", "1").splitlines() if line.startswith("2026")]
    assert first == ["outputs/e", "outputs/b"]
    ranked = json.loads(listed(cli, "--best", "2", "--json"))
    assert [(row["rank"], row["run"], row["value"]) for row in ranked] == [
        (1, "outputs/e", 0.9), (2, "outputs/d", 0.7), (1, "outputs/b", 0.5), (2, "outputs/c", 1.0)
    ]  # fmt: skip


def test_programs_get_the_runs_too(cli: Cli, finished: Finished, tmp_path: Path) -> None:
    run = finished("sft")
    rows = json.loads(listed(cli, str(run.cwd), "--json"))
    (row,) = [row for row in rows if row["run"] == str(run.out)]
    assert row["status"] == "done" and row["objective"] == "eval_loss" and row["seconds"] >= 0
    read = {row["run"]: row for row in csv.DictReader(io.StringIO(listed(cli, str(run.cwd), "--csv")))}
    assert {key: str(value) for key, value in row.items()} == read[str(run.out)]
    assert json.loads(listed(cli, "--json")) == [] and listed(cli, "--csv") == ""


def test_contradicting_words_are_refused(cli: Cli) -> None:
    for words, part in (
        (["--best", "--sort", "date"], "--sort=date: contradicts --best"),
        (["--best", "-1"], "--best"),
        (["--json", "--csv"], "not allowed with"),
    ):
        done = cli("runs", *words)
        assert done.returncode == 2 and part in done.stderr, done.stderr


def test_trials_and_runs_within_a_run_are_found_and_checkpoints_are_not_entered(tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    for name in (
        "sft/a",
        "sweeps/study/0",
        "sweeps/study/1",
        "sft/a/next",
        "sft/a/checkpoint-2",
        "sft/a/final",
    ):
        made(outputs, name, created=name)
    (outputs / "sweeps" / "study" / "sweep.json").write_text("{}")
    (outputs / "loop").symlink_to(outputs)
    found = [str(row.out.relative_to(outputs)) for row in listing.find(outputs)]
    assert found == ["sft/a", "sft/a/next", "sweeps/study/0", "sweeps/study/1"]


def test_a_thousand_runs_are_listed_at_once(cli: Cli, finished: Finished, tmp_path: Path) -> None:
    """Each with the manifest of a real run and four checkpoints of a dozen files."""
    manifest = json.loads((finished("sft").out / "manifest.json").read_text(encoding="utf8"))
    for number in range(MANY):
        run = made(tmp_path / "outputs" / "sft", f"run-{number:04}", **manifest)
        for part in ("checkpoint-1", "checkpoint-2", "checkpoint-3", "final"):
            (run / part).mkdir()
            for file in range(12):
                (run / part / f"file-{file}.json").touch()
    for words in ([], ["--best", "5"], ["--json"]):
        begun = time.monotonic()
        text = listed(cli, *words)
        took = time.monotonic() - begun
        assert text.count("run-0") == (5 if words[:1] == ["--best"] else MANY), words
        assert took < SECONDS, f"{words}: {took:.2f} s"


def test_what_is_no_manifest_of_a_run_hides_no_other(cli: Cli, tmp_path: Path) -> None:
    """The search goes through folders of other programs too."""
    objective = {"name": "eval_loss", "value": 1.0}
    made(tmp_path, "fine", objective=objective)
    made(tmp_path, "fine_without_times", objective=objective, started="x", created="y")
    base = json.loads((tmp_path / "fine" / "manifest.json").read_text())
    wrong: list[Any] = [[], 1, {}, {"name": "a web app"}, base | {"status": None},
                        base | {"objective": "low"}, base | {"objective": {"value": 1}}, base | {"stage": 3},
                        base | {"created": 5}]  # fmt: skip
    for number, content in enumerate(wrong):
        (tmp_path / f"wrong{number}").mkdir()
        (tmp_path / f"wrong{number}" / "manifest.json").write_text(json.dumps(content))
    for words in ([], ["--best"], ["--json"], ["--sort", "objective"]):
        text = listed(cli, str(tmp_path), *words)
        assert "wrong" not in text and text.count("fine") >= 2, text
