"""Tab Evaluate & export: a finished run behind another job, as a command that is shown, checked and started."""

from collections.abc import Iterator
from typing import Any

import gradio as gr

from llmf_hydra.config.quoting import hydra_value
from llmf_hydra.errors import Refused
from llmf_hydra.webui import commands, watch
from llmf_hydra.webui.composed import compose
from llmf_hydra.webui.fields import Place, merged, new_name, run_folder, words_of

JOBS = ("evaluate", "predict", "export")
EXPORTS = "exports"
EVERY = 2.0  # seconds between two looks at what a command prints


def use_tab(page: gr.Blocks, tab: gr.Tab, place: Place) -> None:
    """Lay the tab out."""
    with gr.Row(equal_height=False):
        with gr.Column(min_width=320):
            job = gr.Radio(list(JOBS), value="export", label="Job", elem_id="use-job")
            run = gr.Dropdown([], label="Run", allow_custom_value=True, elem_id="use-run")
            name = gr.Textbox(
                label="Folder below exports/", visible=True, placeholder="my-model", elem_id="export-name"
            )
            overrides = gr.Textbox(
                label="More settings", lines=3, elem_id="use-overrides",
                placeholder="evaluation.task=mmlu_test evaluation.task_dir=mmlu",
            )  # fmt: skip
            start = gr.Button("Start", variant="primary", elem_id="use-start")
        with gr.Column(min_width=320):
            command = gr.Code(
                label="Command", language="shell", interactive=False, lines=1, wrap_lines=True, elem_id="use-command",
                show_line_numbers=False,
            )  # fmt: skip
            refused = gr.Textbox(
                label="Refused", lines=1, max_lines=12, interactive=False, elem_id="use-refused"
            )
    gr.Markdown("#### Commands started from this page")
    process = gr.Dropdown([], label="Command", allow_custom_value=True, elem_id="process")
    stop = gr.Button("Stop", variant="stop", elem_id="use-stop")
    output = gr.Textbox(label="Output", lines=6, max_lines=25, interactive=False, elem_id="use-output")
    fields = [job, run, name, overrides]

    def words(what: str, of: str | None, folder: str, text: str) -> list[str]:
        run_name = hydra_value(watch.name(run_folder(of, place), place))
        said = [f"job={what}", f"from_run={run_name}"]
        if what == "export" and folder:
            said.append(f"export.export_dir={EXPORTS}/{new_name(folder)}")
        return merged(said, words_of(text or "", place))

    def composed(*values: Any) -> tuple[str, str, Any]:
        folder = gr.Textbox(visible=values[0] == "export")
        try:
            said = words(*values)
        except Refused as refusal:
            return "", str(refusal), folder
        return commands.shown(said), "\n".join(compose(said, place).problems) or "nothing", folder

    def started(*values: Any) -> Iterator[tuple[Any, str]]:
        try:
            begun = commands.start(words(*values), place)
        except Refused as refusal:
            yield gr.skip(), str(refusal)
            return
        yield gr.Dropdown(_commands(place), value=begun.folder.name), begun.shown

    def looked_at(chosen: str | None) -> str:
        begun = _named(chosen, place)
        if begun is None:
            return ""
        return f"{begun.shown}\n{begun.output}{'' if begun.running else '(ended)'}"

    def stopped(chosen: str | None) -> str:
        begun = _named(chosen, place)
        if begun is not None:
            commands.stop(begun)
        return looked_at(chosen)

    def opened() -> tuple[Any, Any]:
        done = [row for row in watch.rows(place) if row.status == "done"]
        return gr.Dropdown(watch.choices(done, place)), gr.Dropdown(_commands(place))

    shown = [command, refused, name]
    left = [field.blur if isinstance(field, gr.Textbox) else field.input for field in fields]
    gr.on(left, composed, fields, shown, show_progress="hidden", trigger_mode="always_last")
    run.focus(lambda: opened()[0], None, run, show_progress="hidden")
    process.focus(lambda: opened()[1], None, process, show_progress="hidden")
    start.click(started, fields, [process, output])
    process.input(looked_at, process, output, show_progress="hidden")
    stop.click(stopped, process, output)
    gr.Timer(EVERY).tick(looked_at, process, output, show_progress="hidden")
    gr.on([page.load, tab.select], opened, None, [run, process], show_progress="hidden")


def _commands(place: Place) -> list[tuple[str, str]]:
    return [
        (f"{begun.folder.name[:19]} {begun.shown}", begun.folder.name)
        for begun in commands.all_started(place)
    ]


def _named(chosen: str | None, place: Place) -> commands.Started | None:
    return next((begun for begun in commands.all_started(place) if begun.folder.name == chosen), None)
