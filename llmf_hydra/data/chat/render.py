"""From messages to text, and to the characters of it that are trained: each answer and the end of its turn.

Where the template marks what is generated, the marks are taken. Otherwise the dialogue is written turn by
turn, and each beginning must be the beginning of the whole. Where neither works the row is refused.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from llmf_hydra.data.chat.jinja import CLOSE, OPEN
from llmf_hydra.data.chat.template import Chat
from llmf_hydra.data.rows import BadRow, Message

Span = tuple[int, int]
_MARK = re.compile(f"[{OPEN}{CLOSE}]")
_PROBE = "\ufdd2"  # stands for an answer where one is asked where it lies in the text


@dataclass(slots=True)
class Rendered:
    """A text with the spans of characters of its answers, in order; `weights` 0 where one is not trained."""

    text: str
    answers: list[Span]
    weights: list[int]


def render_dialogue(
    chat: Chat, messages: Sequence[Message], tools: list[dict[str, object]] | None
) -> Rendered:
    """The whole dialogue and all its answers. Raises BadRow."""
    turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    weights = [int(messages[i].get("weight", 1) != 0) for i in turns]
    if chat.marks:
        return Rendered(*_by_marks(chat, messages, tools), weights)
    whole = chat.render(messages, tools)
    return Rendered(whole, [_answer(chat, messages, tools, whole, turn) for turn in turns], weights)


def _by_marks(
    chat: Chat, messages: Sequence[Message], tools: list[dict[str, object]] | None
) -> tuple[str, list[Span]]:
    text, answers = marked(chat.render(messages, tools))
    if len(answers) != sum(message["role"] == "assistant" for message in messages):
        raise _not_found(len(answers))
    return text, [_with_stop(chat, text, span) for span in answers]


def render_prompt(chat: Chat, messages: Sequence[Message], tools: list[dict[str, object]] | None) -> str:
    """The text of a prompt up to where the answer begins. Raises BadRow."""
    text = chat.render(messages, tools, answer_next=True)
    return _MARK.sub("", text) if chat.marks else text


def render_completion(
    chat: Chat, prompt: Sequence[Message], answer: Sequence[Message], tools: list[dict[str, object]] | None
) -> Rendered:
    """Prompt and answer (which may go on over several turns), with the answer as one span. Raises BadRow."""
    rendered = render_dialogue(chat, [*prompt, *answer], tools)
    first = sum(message["role"] == "assistant" for message in prompt)
    return Rendered(rendered.text, [(rendered.answers[first][0], rendered.answers[-1][1])], [1])


def marked(text: str) -> tuple[str, list[Span]]:
    """The text without its marks, and the spans that they held."""
    parts = _MARK.split(text)
    answers: list[Span] = []
    at = 0
    for number, part in enumerate(parts):
        if number % 2:
            answers.append((at, at + len(part)))
        at += len(part)
    return "".join(parts), answers


def _answer(
    chat: Chat, messages: Sequence[Message], tools: list[dict[str, object]] | None, whole: str, turn: int
) -> Span:
    """Where the answer of a turn begins and where its turn ends."""
    start = _start(chat, messages[:turn], tools, whole)
    if turn == len(messages) - 1:
        end = len(whole)
    else:
        upto = chat.render(messages[: turn + 1], tools)
        end = len(upto) if whole.startswith(upto) else None
    if start is not None and end is not None and start <= end:
        return start, _end_of_turn(chat, whole, start, end)
    return _by_probe(chat, messages, tools, whole, turn, start)


def _start(
    chat: Chat, before: Sequence[Message], tools: list[dict[str, object]] | None, whole: str
) -> int | None:
    prompt = chat.render(before, tools, answer_next=True)
    return len(prompt) if whole.startswith(prompt) else None


def _end_of_turn(chat: Chat, whole: str, start: int, end: int) -> int:
    """The end without the white space that separates turns, if the turn ends with a stop."""
    bare = whole[start:end].rstrip()
    return start + len(bare) if bare.endswith(chat.stops) else _with_stop(chat, whole, (start, end))[1]


def _with_stop(chat: Chat, text: str, span: Span) -> Span:
    """The span with the stop that follows it, where it does not end with one: a model must learn to stop."""
    start, end = span
    if text.endswith(chat.stops, start, end):
        return span
    return start, end + len(next((stop for stop in chat.stops if text.startswith(stop, end)), ""))


def _by_probe(
    chat: Chat,
    messages: Sequence[Message],
    tools: list[dict[str, object]] | None,
    whole: str,
    turn: int,
    start: int | None,
) -> Span:
    """Write the dialogue with another answer in this turn: what stays as it was is not the answer."""
    probe: list[Message] = [*messages]
    probe[turn] = {"role": "assistant", "content": _PROBE}
    head, found, tail = chat.render(probe, tools).partition(_PROBE)
    if start is None and whole.startswith(head):
        start = len(head)
    if not found or start is None or not whole.endswith(tail) or len(whole) - len(tail) < start:
        raise _not_found(turn)
    answer_end = len(whole) - len(tail)
    white = len(tail) - len(tail.lstrip())  # such as the space that Llama 2 puts before its stop
    with_stop = _with_stop(chat, whole, (answer_end, answer_end + white))[1]
    return start, with_stop if with_stop > answer_end + white else answer_end


def _not_found(turn: int) -> BadRow:
    what = f"has an answer (turn {turn + 1}) that cannot be found in the chat template's text"
    return BadRow("", what, "choose a named template (data.template), or one with {% generation %} marks")
