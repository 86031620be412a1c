"""Tab Runs & sweeps: all runs in a table, several of them in one plot, what differs between two, and studies."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pandas

from llmf_hydra.errors import NO_VALUE, Problem, Refused
from llmf_hydra.webui import commands, watch
from llmf_hydra.webui.fields import Place, path_fault, run_folder

STUDY = "study.json"
JOBS = ("train", "predict", "evaluate", "export", "check", "preview")
TRIALS = ["trial", "objective", "status"]
EMPTY = 0.3  # seconds that a plot is empty before it has other series: it keeps the colours it was built with


def compare_tab(page: gr.Blocks, tab: gr.Tab, place: Place) -> None:
    """Lay the tab out."""
    refresh = gr.Button("Refresh", elem_id="refresh")
    table = gr.Dataframe(
        headers=watch.HEAD, datatype="str", interactive=False, wrap=False, label="Runs", elem_id="runs",
        show_search="filter", max_height=360,
    )  # fmt: skip
    chosen = gr.Dropdown(
        [], multiselect=True, label="Runs to compare", allow_custom_value=True, elem_id="chosen"
    )
    with gr.Row():
        metrics = gr.Dropdown([], multiselect=True, label="Metrics", info="None chosen: the losses.")
        differ = gr.Button("What differs (of two runs)", elem_id="differ")
    plot = gr.LinePlot(
        x="step", y="value", color="metric", color_title="", label="Curves", height=320, elem_id="compared"
    )
    difference = gr.Textbox(label="llmf diff", lines=4, max_lines=30, interactive=False, elem_id="difference")
    with gr.Accordion("Sweeps", open=False):
        study = gr.Dropdown([], label="Study", allow_custom_value=True, elem_id="study")
        trials = gr.Textbox(
            label="llmf sweep show", lines=4, max_lines=30, interactive=False, elem_id="trials"
        )
        history = gr.ScatterPlot(
            x="trial",
            y="objective",
            color="status",
            label="Objective of each trial",
            height=280,
            elem_id="history",
        )

    def listed() -> tuple[Any, ...]:
        found = watch.rows(place)
        return (
            watch.table(found, place),
            gr.Dropdown(watch.choices(found, place, JOBS)),
            gr.Dropdown(_studies(place)),
        )

    def drawn(names: list[str], wanted: list[str]) -> Iterator[tuple[Any, Any, Any]]:
        try:
            outs = [run_folder(name, place) for name in names]
        except Refused as refusal:
            yield gr.skip(), gr.skip(), str(refusal)
            return
        logged = watch.metrics_of(outs)
        yield None, gr.Dropdown(logged), gr.skip()
        time.sleep(EMPTY)
        yield watch.curves(outs, watch.drawn_of(wanted, logged), place), gr.skip(), gr.skip()

    def compared(names: list[str]) -> str:
        try:
            if len(names) != 2:
                raise Refused([Problem("runs to compare", NO_VALUE, "must be two", "choose two of the list")])
            two = [watch.name(run_folder(name, place), place) for name in names]
        except Refused as refusal:
            return str(refusal)
        return commands.answer(["diff", *two], place).text

    def shown_study(name: str | None) -> Iterator[tuple[Any, Any]]:
        try:
            folder = watch.name(_study(name, place), place)
        except Refused as refusal:
            yield str(refusal), gr.skip()
            return
        told = commands.answer(["sweep", "show", folder], place)
        history = _history(commands.answer(["sweep", "show", folder, "--json"], place).out)
        yield told.text, None
        time.sleep(EMPTY)
        yield gr.skip(), history

    opened = [table, chosen, study]
    refresh.click(listed, None, opened)
    chosen.change(drawn, [chosen, metrics], [plot, metrics, difference])
    metrics.input(drawn, [chosen, metrics], [plot, metrics, difference])
    differ.click(compared, chosen, difference)
    study.input(shown_study, study, [trials, history])
    gr.on([page.load, tab.select], listed, None, opened, show_progress="hidden")


def _studies(place: Place) -> list[str]:
    return sorted(
        (watch.name(file.parent, place) for file in place.outputs.glob(f"**/{STUDY}")), reverse=True
    )


def _study(name: str | None, place: Place) -> Path:
    if not name or path_fault(name, place) or name not in _studies(place):
        raise Refused([Problem("study", name, "is no study below outputs/", "choose one from the list")])
    return place.cwd / name


def _history(told: str) -> pandas.DataFrame | None:
    """The objectives of a study's trials by number, from what `llmf sweep show --json` says; None for none."""
    try:
        trials = json.loads(told)["trials"]
    except (ValueError, KeyError):
        trials = []
    points = [
        [trial["number"], trial["objective"], trial.get("status") or trial.get("state") or "done"]
        for trial in trials
        if trial.get("objective") is not None
    ]
    return pandas.DataFrame(points, columns=TRIALS) if points else None
