"""Tab Train: from the fields to a command line, its config and what would be refused of it; and its start."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from llmf_hydra.config.conf_files import choices
from llmf_hydra.config.quoting import hydra_value, override_lines
from llmf_hydra.errors import Refused
from llmf_hydra.webui import commands, watch
from llmf_hydra.webui.composed import compose, edits
from llmf_hydra.webui.fields import Place, merged, problems, words_of
from llmf_hydra.webui.tabs.monitor import Monitor

DEFAULTS = {  # of conf/config.yaml, by group; a choice of it isn't said, but for the first three
    "stage": "sft",
    "method": "lora",
    "model": "smollm2",
    "optimizer": "adamw",
    "quantization": "none",
    "rlhf": "default",
    "tracking": "files",
}
ALWAYS_SAID = ("stage", "method", "model")
PATIENCE = 60.0  # seconds in which a command says which run it begins
LOOK = 300.0  # seconds for job=check and job=preview
NOTHING = "nothing"


@dataclass(frozen=True)
class Form:
    """The fields that say what is run, its buttons, and what is shown of it."""

    fields: list[Any]  # the groups, the datasets, the overrides, whether it is a sweep
    overrides: gr.Textbox
    preview: gr.Button
    check: gr.Button
    start: gr.Button
    command: gr.Code
    refused: gr.Textbox
    config: gr.Code
    apply: gr.Button
    output: gr.Textbox


def train_tab(page: gr.Blocks, place: Place, monitor: Monitor) -> None:
    """Lay the tab out."""
    form, acts = _form(), Acts(place)
    told = gr.State("")  # the config as composed, beside which edits are seen
    fields, shown = form.fields, [form.command, form.refused, form.config, told]
    # One event for all of them: an answer to an older state of the fields never comes after a newer one.
    left = [field.blur if isinstance(field, gr.Textbox) else field.input for field in fields]
    entered = [field.submit for field in fields if isinstance(field, gr.Textbox)]
    gr.on(
        [page.load, *left, *entered], acts.compose, fields, shown, show_progress="hidden",
        trigger_mode="always_last",
    )  # fmt: skip
    form.apply.click(acts.apply, [told, form.config, form.overrides], [form.overrides, form.refused]).then(
        acts.compose, fields, shown, show_progress="hidden"
    )
    form.preview.click(partial(acts.look, "preview"), fields, form.output)
    form.check.click(partial(acts.look, "check"), fields, form.output)
    form.start.click(acts.start, fields, [form.output, monitor.run])


class Acts:
    """What the buttons do; `values` are those of the form's fields."""

    def __init__(self, place: Place):
        self._place = place

    def compose(self, *values: Any) -> tuple[str, str, str, str]:
        """The command, what would be refused of it, and its config twice: to be edited, and as it was."""
        try:
            words, several = words_from(values, self._place)
        except Refused as refusal:
            return "", _lines(refusal), "", ""
        composed = compose(words, self._place, sweep=several)
        flag = ["-m"] if several else []
        refused = "\n".join(composed.problems) or NOTHING
        return commands.shown([*flag, *words]), refused, composed.config, composed.config

    def apply(self, before: str, edited: str, text: str) -> tuple[str, str]:
        """The settings with the edits of the config among them, and what is refused of these."""
        try:
            words = merged(words_of(text, self._place), edits(before, edited))
            words_of(override_lines(words), self._place)
        except Refused as refusal:
            return text, _lines(refusal)
        return override_lines(words), NOTHING

    def look(self, job: str, *values: Any) -> Iterator[Any]:
        """What job=preview or job=check says."""
        yield gr.Textbox(visible=True, value="…")
        try:
            words, _ = words_from(values, self._place)
        except Refused as refusal:
            yield gr.Textbox(value=_lines(refusal))
            return
        yield gr.Textbox(value=commands.answer([f"job={job}", *words], self._place, LOOK).text)

    def start(self, *values: Any) -> Iterator[tuple[Any, Any]]:
        """Start the run, and have the monitor follow it once it has a folder."""
        try:
            words, several = words_from(values, self._place)
        except Refused as refusal:
            yield gr.Textbox(visible=True, value=_lines(refusal)), gr.skip()
            return
        process = commands.start([*(["-m"] if several else []), *words], self._place)
        yield gr.Textbox(visible=True, value=f"started: {process.shown}"), gr.skip()
        out = self._opened(process, several)
        if out is None or watch.manifest_of(out) is None:
            yield gr.Textbox(value=f"{process.shown}\n{process.output}"), gr.skip()
            return
        found = watch.choices(watch.rows(self._place), self._place)
        run = gr.Dropdown(found, value=watch.name(out, self._place))
        yield gr.Textbox(value=f"started: {process.shown}"), run

    def _opened(self, process: commands.Started, several: bool) -> Path | None:
        """The folder of the run that a command begins, once it says so; of a sweep it says none."""
        end = time.monotonic() + PATIENCE
        while process.running and (several or process.run(self._place) is None) and time.monotonic() < end:
            time.sleep(0.2)
            if several and process.output:
                break
        return process.run(self._place)


def words_from(values: Sequence[Any], place: Place) -> tuple[list[str], bool]:
    """The words that the fields stand for, and whether they are a sweep's. Raises Refused."""
    *chosen, dataset, text, several = values
    said = [
        f"{group}={choice}"
        for (group, default), choice in zip(DEFAULTS.items(), chosen, strict=True)
        if group in ALWAYS_SAID or choice != default
    ]
    if dataset and dataset.strip():
        said.append(f"data.dataset={hydra_value(dataset.strip())}")
    found = [problem for word in said for problem in problems(word, place)]
    if found:
        raise Refused(found)
    return merged(said, words_of(text or "", place)), bool(several)


def _form() -> Form:
    with gr.Row(equal_height=False):
        with gr.Column(min_width=320):
            groups = _groups()
            dataset = gr.Textbox(
                label="Datasets",
                placeholder="names from data/dataset_info.json, or files; empty for the stage's demo",
                elem_id="dataset",
            )
            overrides = gr.Textbox(
                label="More settings",
                lines=4,
                placeholder="training.max_steps=100 method.lora_rank=16",
                info="As on the command line, over several lines as you like.",
                elem_id="overrides",
            )
            sweep = gr.Checkbox(
                label="Sweep (-m): a setting with several values, such as method.lora_rank=4,8"
            )
            with gr.Row():
                preview = gr.Button("Preview data", elem_id="preview")
                check = gr.Button("Check rows and memory", elem_id="check")
                start = gr.Button("Start", variant="primary", elem_id="start")
        with gr.Column(min_width=320):
            command = gr.Code(
                label="Command", language="shell", interactive=False, lines=1, wrap_lines=True, elem_id="command",
                show_line_numbers=False,
            )  # fmt: skip
            refused = gr.Textbox(label="Refused", lines=1, max_lines=12, interactive=False, elem_id="refused")
            config = gr.Code(
                label="Config", language="yaml", interactive=True, lines=12, max_lines=22, elem_id="config"
            )
            apply = gr.Button("Turn edits of the config into settings", elem_id="apply")
    output = gr.Textbox(
        label="Output", lines=3, max_lines=25, interactive=False, elem_id="output", visible=False
    )
    fields = [*groups, dataset, overrides, sweep]
    return Form(fields, overrides, preview, check, start, command, refused, config, apply, output)


def _groups() -> list[gr.Dropdown]:
    """A field for each group, in the order of DEFAULTS."""
    fields = []
    with gr.Row():
        for group, default in DEFAULTS.items():
            fields.append(
                gr.Dropdown(
                    choices(group), value=default, label=group, min_width=140, elem_id=f"choose-{group}"
                )
            )
    return fields


def _lines(refusal: Refused) -> str:
    return "\n".join(map(str, refusal.problems))
