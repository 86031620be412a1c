"""Tab Chat: one model or two side by side, each behind a `job=api` of its own, spoken to at once."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from llmf_hydra.errors import LlmfError, Refused
from llmf_hydra.webui import watch
from llmf_hydra.webui.fields import Place, run_folder, words_of
from llmf_hydra.webui.talk import Message, Model

SIDES = ("left", "right")
IDLE = "no model"


@dataclass
class Side:
    """The fields of one of the two models."""

    run: gr.Dropdown
    words: gr.Textbox
    load: gr.Button
    end: gr.Button
    state: gr.Textbox
    talk: gr.Chatbot


class Models:
    """The models of all sessions of the page, each under its session and side."""

    def __init__(self) -> None:
        self._models: dict[tuple[str, str], Model] = {}

    def get(self, session: str, side: str) -> Model | None:
        """The model of a side, if one is loaded."""
        return self._models.get((session, side))

    def put(self, session: str, side: str, model: Model) -> None:
        """Set the model of a side."""
        self.end(session, side)
        self._models[session, side] = model

    def end(self, session: str, *sides: str) -> None:
        """End the models of a session that are named, or all of them."""
        for side in sides or SIDES:
            model = self._models.pop((session, side), None)
            if model is not None:
                model.stop()

    def end_all(self) -> None:
        """End every model."""
        for session, side in list(self._models):
            self.end(session, side)


def chat_tab(page: gr.Blocks, place: Place, models: Models) -> None:
    """Lay the tab out."""
    with gr.Row(equal_height=False):
        sides = [_side(name, index) for index, name in enumerate(SIDES)]
    message = gr.Textbox(label="Message", lines=2, submit_btn=True, stop_btn=False, elem_id="message")
    with gr.Row():
        stop = gr.Button("Stop the answer", elem_id="stop-answer")
        clear = gr.Button("Clear", elem_id="clear")
    with gr.Accordion("System prompt and sampling", open=False):
        system = gr.Textbox(label="System prompt", lines=2)
        with gr.Row():
            temperature = gr.Number(0.7, label="Temperature", minimum=0, maximum=2, step=0.1)
            most = gr.Number(256, label="Maximum tokens", minimum=1, precision=0, elem_id="max-tokens")

    def loading(side: str) -> Any:
        def load(run: str | None, words: str, request: gr.Request) -> Iterator[str]:
            session = request.session_hash or ""
            models.end(session, side)
            try:
                said = words_of(words or "", place)
                if run:
                    said = [f"from_run={watch.name(run_folder(run, place), place)}", *said]
                model = Model(said, place)
                models.put(session, side, model)
                for state in model.starting():
                    yield f"{model.shown}\n{state}"
                yield f"ready: {model.shown}"
            except Refused as refusal:
                models.end(session, side)
                yield str(refusal)

        return load

    def unload(side: str) -> Any:
        def end(request: gr.Request) -> str:
            models.end(request.session_hash or "", side)
            return IDLE

        return end

    async def send(
        text: str, left: list[Message], right: list[Message], told: str, heat: float, tokens: int,
        request: gr.Request,
    ) -> AsyncIterator[tuple[Any, ...]]:  # fmt: skip
        if not text.strip():
            yield left, right, text
            return
        session = request.session_hash or ""
        talks = [_turns(talk) for talk in (left, right)]
        loaded = [
            (talk, model)
            for talk, side in zip(talks, SIDES, strict=True)
            if (model := models.get(session, side))
        ]
        if not loaded:
            talks[0].append({"role": "user", "content": text})
            talks[0].append({"role": "assistant", "content": "load a model first"})
            yield *talks, ""
            return
        settings = {"temperature": heat, "max_tokens": tokens}
        changed: asyncio.Queue[None] = asyncio.Queue()

        async def follow(talk: list[Message], model: Model) -> None:
            asked: list[Message] = [{"role": "system", "content": told}] if told.strip() else []
            talk.append({"role": "user", "content": text})
            asked += talk
            talk.append({"role": "assistant", "content": ""})
            try:
                async for piece in model.answer(asked, settings):
                    talk[-1]["content"] += piece
                    changed.put_nowait(None)
            except LlmfError as error:
                talk[-1]["content"] += f"[{error}]"

        tasks = [asyncio.create_task(follow(talk, model)) for talk, model in loaded]
        try:
            while not all(task.done() for task in tasks):
                await asyncio.wait([*tasks, asyncio.create_task(changed.get())], timeout=0.2,
                                   return_when=asyncio.FIRST_COMPLETED)  # fmt: skip
                yield *talks, ""
        finally:
            for task in tasks:
                task.cancel()
        yield *talks, ""

    talks = [side.talk for side in sides]
    for name, side in zip(SIDES, sides, strict=True):
        side.load.click(loading(name), [side.run, side.words], side.state, show_progress="hidden")
        side.end.click(unload(name), None, side.state)
        side.run.focus(lambda: gr.Dropdown(_choices(place)), None, side.run, show_progress="hidden")
    sending = message.submit(
        send, [message, *talks, system, temperature, most], [*talks, message], show_progress="hidden"
    )
    stop.click(None, None, None, cancels=[sending])
    clear.click(lambda: ([], [], ""), None, [*talks, message])
    page.load(
        lambda: [gr.Dropdown(_choices(place)) for _ in sides], None, [side.run for side in sides],
        show_progress="hidden",
    )  # fmt: skip


def _side(name: str, index: int) -> Side:
    with gr.Column(min_width=320):
        run = gr.Dropdown(
            [], value=None, label=f"Run ({name})", allow_custom_value=True, elem_id=f"chat-run-{name}",
            info="Its model and adapter are loaded. Empty: the model of the settings." if index == 0 else
            "A second one, to compare.",
        )  # fmt: skip
        words = gr.Textbox(label="Settings", placeholder="model=smollm2", elem_id=f"chat-words-{name}")
        with gr.Row():
            load = gr.Button("Load", elem_id=f"load-{name}", min_width=80)
            end = gr.Button("Unload", elem_id=f"unload-{name}", min_width=80)
        state = gr.Textbox(IDLE, label="Model", interactive=False, max_lines=8, elem_id=f"model-{name}")
        talk = gr.Chatbot(
            [], label=name, height=360, render_markdown=False, elem_id=f"talk-{name}", feedback_options=None
        )
    return Side(run, words, load, end, state, talk)


def _choices(place: Place) -> list[tuple[str, str]]:
    """Nothing, and the runs that have ended with a model."""
    done = [row for row in watch.rows(place) if row.status == "done"]
    return [("none", ""), *watch.choices(done, place)]


def _turns(talk: list[Any]) -> list[Message]:
    """The turns of a chatbot as plain text; it hands over the parts of each message."""
    turns: list[Message] = []
    for turn in talk:
        content = turn["content"]
        parts = content if isinstance(content, list) else [content]
        texts = [part if isinstance(part, str) else part.get("text", "") for part in parts]
        turns.append({"role": turn["role"], "content": "".join(texts)})
    return turns
