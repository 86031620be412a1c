"""`llmf diff`: what two runs were given and what came of it, for readers and for programs."""

import csv
import io
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.command_line import Cli, losses
from support.finished_runs import Finished, FinishedRun

from llmf_hydra.cli import diff
from llmf_hydra.errors import Refused

Two = tuple[FinishedRun, FinishedRun]


@pytest.fixture(scope="module")
def two(finished: Finished) -> Two:
    """Two runs that differ in their seed."""
    return finished("sft"), finished("sft", "training.seed=7")


def said(done: "subprocess.CompletedProcess[str]") -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def last_metrics(run: FinishedRun) -> dict[str, float]:
    return json.loads((run.out / "metrics.json").read_text(encoding="utf8"))


def test_readers_get_what_was_changed_and_both_values(cli: Cli, two: Two) -> None:
    old, new = two
    lines = said(cli("diff", str(old.out), str(new.out))).splitlines()
    assert "config: 1 differs" in lines and "  training.seed: 42 -> 7" in lines
    assert "seed: 1 differs" in lines and "  seed: 42 -> 7" in lines
    assert {"code: same", "package: same", "tokenizer: same", "model: same"} <= set(lines)
    assert any(line.startswith("log: parts at step 2, loss: ") for line in lines)
    (row,) = [line.split() for line in lines if line.startswith("  eval_loss ")]
    shown = [f"{last_metrics(run)['eval_loss']:.6g}" for run in two]
    assert row[1:3] == shown and shown[0] != shown[1]


def test_a_run_is_the_same_as_itself(cli: Cli, two: Two) -> None:
    lines = said(cli("diff", str(two[0].out), str(two[0].out))).splitlines()
    assert "config: same" in lines and "seed: same (seed 42, data_seed null)" in lines
    assert any(re.fullmatch(r"log: the same \d+ values in \d+ steps", line) for line in lines)


def test_programs_get_json_and_csv(cli: Cli, two: Two) -> None:
    old, new = (str(run.out) for run in two)
    found: dict[str, Any] = json.loads(said(cli("diff", old, new, "--json")))
    assert found["runs"] == [old, new] and found["log"]["parting"]["step"] == 2
    keys = [(change["kind"], change["name"], change["old"], change["new"]) for change in found["differences"]]
    assert ("config", "training.seed", 42, 7) in keys and ("seed", "seed", 42, 7) in keys
    values = [last_metrics(run)["eval_loss"] for run in two]
    assert list(found["metrics"]["eval_loss"].values()) == values
    assert not any("runtime" in name or "per_second" in name for name in found["metrics"])
    rows = list(csv.DictReader(io.StringIO(said(cli("diff", old, new, "--csv")))))
    by_name = {(row["kind"], row["name"]): (row["old"], row["new"]) for row in rows}
    assert by_name["config", "training.seed"] == ("42", "7")
    assert by_name["metric", "eval_loss"] == (repr(values[0]), repr(values[1]))


def test_the_page_holds_both_curves_and_needs_nothing_else(cli: Cli, two: Two, tmp_path: Path) -> None:
    old, new = (str(run.out) for run in two)
    done = cli("diff", old, new, "--plot", "curves.html")
    assert said(done) and "curves.html: loss, eval_loss of both runs" in done.stderr
    page = (tmp_path / "curves.html").read_text(encoding="utf8")
    assert not re.search(r"<(script|link)[^>]*(src|href)\s*=", page), "loads something"
    drawn = page[page.rindex("Plotly.newPlot(") :]
    for run in two:
        assert run.out.name in drawn
        assert ",".join(map(repr, losses(run.out))) in drawn.replace(" ", "")
    again = cli("diff", old, new, "--plot", "curves.html")
    assert again.returncode == 2 and "is there already" in again.stderr


def test_a_page_without_plotly_is_refused_with_the_remedy(two: Two, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("llmf_hydra.optional.importlib.util.find_spec", lambda _: None)
    with pytest.raises(Refused, match=r"needs the package plotly; pip install 'llmf_hydra\[report\]'"):
        diff.main([*(str(run.out) for run in two), "--plot", str(tmp_path / "x.html")])
    assert not (tmp_path / "x.html").exists()


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["nowhere"], ["nowhere", "is not a run folder"]),
        (["{run}", "--plot", "x.png"], ["--plot=x.png", "x.html"]),
        (["{run}", "--plot", "no/x.html"], ["folder that does not exist"]),
        (["{run}", "--plot", "x.html"], ["both are the same run"]),
        (["{run}", "--json", "--csv"], ["not allowed with"]),
    ],
)
def test_bad_words_are_refused(cli: Cli, finished: Finished, words: list[str], parts: list[str]) -> None:
    run = str(finished("sft").out)
    done = cli("diff", run, *(word.format(run=run) for word in words))
    assert done.returncode == 2 and all(part in done.stderr for part in parts), done.stderr
