"""Tab Train: from the fields to a command line, its config and what would be refused of it; and its start."""

import time
from collections.abc import Iterator, Sequence
from functools import partial
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


def train_tab(page: gr.Blocks, place: Place, monitor: Monitor) -> None:
    """Lay the tab out."""
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
                look = gr.Button("Preview data", elem_id="preview")
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
    told = gr.State("")  # the config as composed, beside which edits are seen
    fields = [*groups, dataset, overrides, sweep]

    def composed(*values: Any) -> tuple[str, str, str, str]:
        try:
            words, several = words_from(values, place)
        except Refused as refusal:
            return "", _lines(refusal), "", ""
        answer = compose(words, place, sweep=several)
        flag = ["-m"] if several else []
        return (
            commands.shown([*flag, *words]),
            "\n".join(answer.problems) or NOTHING,
            answer.config,
            answer.config,
        )

    def applied(before: str, edited: str, text: str) -> tuple[str, str]:
        try:
            words = merged(words_of(text, place), edits(before, edited))
            words_of(override_lines(words), place)
        except Refused as refusal:
            return text, _lines(refusal)
        return override_lines(words), NOTHING

    def looked_at(job: str, *values: Any) -> Iterator[Any]:
        yield gr.Textbox(visible=True, value="…")
        try:
            words, _ = words_from(values, place)
        except Refused as refusal:
            yield gr.Textbox(value=_lines(refusal))
            return
        yield gr.Textbox(value=commands.answer([f"job={job}", *words], place, LOOK).text)

    def started(*values: Any) -> Iterator[tuple[Any, Any]]:
        try:
            words, several = words_from(values, place)
        except Refused as refusal:
            yield gr.Textbox(visible=True, value=_lines(refusal)), gr.skip()
            return
        process = commands.start([*(["-m"] if several else []), *words], place)
        yield gr.Textbox(visible=True, value=f"started: {process.shown}"), gr.skip()
        end = time.monotonic() + PATIENCE
        while process.running and (several or process.run(place) is None) and time.monotonic() < end:
            time.sleep(0.2)
            if several and process.output:
                break
        out = process.run(place)
        if out is None or watch.manifest_of(out) is None:
            yield gr.Textbox(value=f"{process.shown}\n{process.output}"), gr.skip()
            return
        found = watch.choices(watch.rows(place), place)
        yield gr.Textbox(value=f"started: {process.shown}"), gr.Dropdown(found, value=watch.name(out, place))

    shown = [command, refused, config, told]
    # One event for all of them: an answer to an older state of the fields never comes after a newer one.
    left = [field.blur if isinstance(field, gr.Textbox) else field.input for field in fields]
    gr.on(
        [page.load, *left, dataset.submit, overrides.submit], composed, fields, shown, show_progress="hidden",
        trigger_mode="always_last",
    )  # fmt: skip
    apply.click(applied, [told, config, overrides], [overrides, refused]).then(
        composed, fields, shown, show_progress="hidden"
    )
    look.click(partial(looked_at, "preview"), fields, output)
    check.click(partial(looked_at, "check"), fields, output)
    start.click(started, fields, [output, monitor.run])


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
