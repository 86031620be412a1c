"""Tab Chat: one model or two side by side, each behind a `job=api` of its own, spoken to at once."""

import asyncio
import html
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from llmf_hydra.config.quoting import hydra_value
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


def chat_tab(page: gr.Blocks, tab: gr.Tab, place: Place, models: Models) -> None:
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

    for name, side in zip(SIDES, sides, strict=True):
        seat = Seat(name, place, models)
        side.load.click(seat.load, [side.run, side.words], side.state, show_progress="hidden")
        side.end.click(seat.unload, None, side.state)
        side.run.focus(lambda: gr.Dropdown(_choices(place)), None, side.run, show_progress="hidden")
    talks = [side.talk for side in sides]
    sending = message.submit(
        Talks(models).send, [message, *talks, system, temperature, most], [*talks, message], show_progress="hidden"
    )  # fmt: skip
    stop.click(None, None, None, cancels=[sending])
    clear.click(lambda: ([], [], ""), None, [*talks, message])
    gr.on(
        [page.load, tab.select], lambda: [gr.Dropdown(_choices(place)) for _ in sides], None,
        [side.run for side in sides], show_progress="hidden",
    )  # fmt: skip


class Seat:
    """One of the two sides, where a visitor's model is loaded and ended."""

    def __init__(self, side: str, place: Place, models: Models):
        self._side, self._place, self._models = side, place, models

    def load(self, run: str | None, words: str, request: gr.Request) -> Iterator[str]:
        """Start the model of a run, or of the words alone, telling how it stands until it answers."""
        session = request.session_hash or ""
        self._models.end(session, self._side)
        try:
            said = words_of(words or "", self._place)
            if run:
                folder = watch.name(run_folder(run, self._place), self._place)
                said = [f"from_run={hydra_value(folder)}", *said]
            model = Model(said, self._place)
            self._models.put(session, self._side, model)
            for state in model.starting():
                yield f"{model.shown}\n{state}"
            yield f"ready: {model.shown}"
        except Refused as refusal:
            self._models.end(session, self._side)
            yield str(refusal)

    def unload(self, request: gr.Request) -> str:
        """End the model."""
        self._models.end(request.session_hash or "", self._side)
        return IDLE


class Talks:
    """The dialogues with the models of both sides, which are asked at once."""

    def __init__(self, models: Models):
        self._models = models

    async def send(
        self, text: str, left: list[Message], right: list[Message], told: str, heat: float, tokens: int,
        request: gr.Request,
    ) -> AsyncIterator[tuple[Any, ...]]:  # fmt: skip
        """Both dialogues as they grow by a message and its answers, and the emptied field of the message."""
        if not text.strip():
            yield left, right, text
            return
        talks = [_turns(talk) for talk in (left, right)]
        session = request.session_hash or ""
        asked = [
            (talk, model)
            for talk, side in zip(talks, SIDES, strict=True)
            if (model := self._models.get(session, side))
        ]
        if not asked:
            talks[0] += [_turn("user", text), _turn("assistant", "load a model first")]
            yield *map(_shown, talks), ""
            return
        settings = {"temperature": heat, "max_tokens": tokens}
        changed: asyncio.Queue[None] = asyncio.Queue()
        tasks = [
            asyncio.create_task(_follow(talk, text, model, told, settings, changed)) for talk, model in asked
        ]
        try:
            while not all(task.done() for task in tasks):
                await asyncio.wait([*tasks, asyncio.create_task(changed.get())], timeout=0.2,
                                   return_when=asyncio.FIRST_COMPLETED)  # fmt: skip
                yield *map(_shown, talks), ""
        finally:
            for task in tasks:
                task.cancel()
        yield *map(_shown, talks), ""


async def _follow(
    talk: list[Message],
    text: str,
    model: Model,
    system: str,
    settings: dict[str, float],
    changed: "asyncio.Queue[None]",
) -> None:
    """Have a dialogue grow by a message and the model's answer; each piece of it is a change."""
    talk.append(_turn("user", text))
    asked = [*([_turn("system", system)] if system.strip() else []), *talk]
    talk.append(_turn("assistant", ""))
    try:
        async for piece in model.answer(asked, settings):
            talk[-1]["content"] += piece
            changed.put_nowait(None)
    except LlmfError as error:
        talk[-1]["content"] += f"[{error}]"


def _turn(role: str, content: str) -> Message:
    return {"role": role, "content": content}


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
            [], label=name, height=360, render_markdown=False, latex_delimiters=[], elem_id=f"talk-{name}",
            feedback_options=None, buttons=[],  # one of them would send the dialogue to a site
        )  # fmt: skip
    return Side(run, words, load, end, state, talk)


def _choices(place: Place) -> list[tuple[str, str]]:
    """Nothing, and the runs that have ended with a model."""
    done = [row for row in watch.rows(place) if row.status == "done"]
    return [("none", ""), *watch.choices(done, place)]


def _shown(talk: Sequence[Message]) -> list[Message]:
    """A dialogue for a chatbot, which takes its texts as HTML."""
    return [_turn(turn["role"], html.escape(turn["content"], quote=False)) for turn in talk]


def _turns(talk: list[Any]) -> list[Message]:
    """The dialogue that a chatbot shows; it hands over the parts of each message."""
    turns: list[Message] = []
    for turn in talk:
        content = turn["content"]
        parts = content if isinstance(content, list) else [content]
        texts = [part if isinstance(part, str) else part.get("text", "") for part in parts]
        turns.append(_turn(turn["role"], html.unescape("".join(texts))))
    return turns
