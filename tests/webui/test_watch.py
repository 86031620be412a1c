"""Curves of several runs: named by what tells the runs apart."""

import json
from pathlib import Path

from llmf_hydra.webui import watch
from llmf_hydra.webui.fields import Place


def test_curves_are_named_by_what_tells_the_runs_apart(tmp_path: Path) -> None:
    named = {"2026-11-30_10-00-00_a1": "30_10-00-00_a1", "2026-11-29_09-00-00_b2": "29_09-00-00_b2"}
    for run in named:
        (tmp_path / "outputs" / run).mkdir(parents=True)
        (tmp_path / "outputs" / run / "log.jsonl").write_text(json.dumps({"step": 1, "loss": 2.0}) + "\n")
    outs = [tmp_path / "outputs" / run for run in named]
    place = Place(tmp_path)
    alone, several = watch.curves(outs[:1], ["loss"], place), watch.curves(outs, ["loss"], place)
    assert alone is not None and list(alone["metric"]) == ["loss"]
    assert several is not None and list(several["metric"]) == [f"loss {label}" for label in named.values()]


def test_the_losses_are_drawn_where_nothing_is_chosen() -> None:
    logged = ["loss", "eval_loss", "train_loss", "grad_norm"]
    assert watch.drawn_of([], logged) == watch.drawn_of(["gone"], logged) == ["loss", "eval_loss"]
    assert watch.drawn_of(["grad_norm"], logged) == ["grad_norm"]
