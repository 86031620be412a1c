"""What is seen of one run while it goes on: how it stands, its curves, what it prints; and its end."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr

from llmf_hydra.errors import Refused
from llmf_hydra.tracking.files import LOG
from llmf_hydra.webui import watch
from llmf_hydra.webui.fields import Place, run_folder

EVERY = 2.0  # seconds between two looks


@dataclass(frozen=True)
class Seen:
    """What a look has shown; nothing is drawn anew while it stays."""

    run: str
    metrics: tuple[str, ...]  # that are chosen
    changed: tuple[int, int]  # when the log was, and what the texts are
    series: tuple[
        str, ...
    ] = ()  # in the plot, which keeps the colours that it was built with until it is empty


class Monitor:
    """The part of the page that follows a run, whoever began it."""

    def __init__(self, place: Place):
        self._place = place
        self.run = gr.Dropdown([], label="Run", allow_custom_value=True, elem_id="run", render=False)

    def lay_out(self) -> None:
        """Its fields and plots."""
        self.run.render()
        with gr.Row():
            self.state = gr.Textbox(
                label="Status", interactive=False, scale=4, elem_id="state", lines=1, max_lines=4
            )
            self.end = gr.Button("Stop", variant="stop", scale=1, min_width=100, elem_id="stop")
        self.metrics = gr.Dropdown(
            [], multiselect=True, label="Metrics", info="None chosen: the losses.", elem_id="metrics"
        )
        self.plot = gr.LinePlot(
            x="step", y="value", color="metric", color_title="", label="Curves", height=320, elem_id="plot"
        )
        self.log = gr.Textbox(
            label="Log", lines=6, max_lines=18, interactive=False, elem_id="log", autoscroll=True
        )
        self._seen = gr.State(None)
        shown = [self.state, self.plot, self.log, self.metrics, self._seen]
        asked = [self.run, self.metrics, self._seen]
        quiet: Any = {"show_progress": "hidden"}
        gr.Timer(EVERY).tick(self.look, asked, shown, **quiet)
        self.run.change(self.look, asked, shown, **quiet)
        self.metrics.change(self.look, asked, shown, **quiet)
        self.run.focus(self.choices, None, self.run, **quiet)
        self.end.click(self.stop, self.run, self.state)

    def first(self) -> Any:
        """The runs to choose from, and of them the latest that goes on, else the latest."""
        found = watch.rows(self._place)
        trained = [row for row in found if row.job == "train"]
        now = next((row for row in trained if row.status == "running"), trained[0] if trained else None)
        value = watch.name(now.out, self._place) if now else None
        return gr.Dropdown(watch.choices(found, self._place), value=value)

    def choices(self) -> Any:
        """The runs to choose from, as they stand now."""
        return gr.Dropdown(watch.choices(watch.rows(self._place), self._place))

    def look(self, name: str | None, metrics: list[str], seen: Seen | None) -> tuple[Any, ...]:
        """What there is to see of a run, as far as it isn't seen yet."""
        if not name:
            return ("no run yet", *[gr.skip()] * 4)
        try:
            out = run_folder(name, self._place)
        except Refused as refusal:
            return (str(refusal), *[gr.skip()] * 4)
        state = watch.state(out, self._place)
        text = watch.text(out, self._place)
        now = Seen(name, tuple(metrics), (_changed(out / LOG), hash(text)))
        if seen is not None and replace(seen, series=()) == now:
            return (state, *[gr.skip()] * 4)
        logged = watch.metrics_of([out])
        wanted = watch.drawn_of(metrics, logged)
        series = (name, *wanted) if wanted else ()
        if seen is not None and seen.series not in ((), series):
            return state, None, text, gr.Dropdown(logged), None  # the next look draws
        drawn = watch.curves([out], wanted, self._place)
        return state, drawn, text, gr.Dropdown(logged), replace(now, series=series)

    def stop(self, name: str | None) -> str:
        """Ask the run to save and end."""
        try:
            out = run_folder(name, self._place)
            watch.stop(out, self._place)
        except Refused as refusal:
            return str(refusal)
        return f"{watch.name(out, self._place)}: asked to save and stop"


def _changed(file: Path) -> int:
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return 0
