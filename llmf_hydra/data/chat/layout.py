"""The layout of a dialogue: what a template writes around the contents, for one order of roles.

It is learned once from contents that stand for others, so that a dialogue needs to be rendered only once. The
pieces, joined with its contents, must be the whole that the template writes; else the layout is not used.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llmf_hydra.data.rows import Message

Span = tuple[int, int]
_STAND_IN = re.compile("\ufdd4(\\d+)\ufdd5")


@dataclass(frozen=True)
class Layout:
    """`around` stands before, between and after the contents. For each answer: its message, and how many
    characters of the piece before its content, and of the one after, belong to it (such as a space, and the
    end of the turn)."""

    around: tuple[str, ...]
    answers: tuple[tuple[int, int, int], ...]

    def text(self, messages: Sequence[Message]) -> str:
        """The dialogue as the pieces say it is."""
        parts = [self.around[0]]
        for message, after in zip(messages, self.around[1:], strict=True):
            parts += (message["content"], after)
        return "".join(parts)

    def spans(self, messages: Sequence[Message]) -> list[Span]:
        """Where the answers stand in `text(messages)`."""
        starts, at = [], 0
        for before, message in zip(self.around, messages, strict=False):
            at += len(before)
            starts.append(at)
            at += len(message["content"])
        return [
            (starts[turn] - lead, starts[turn] + len(messages[turn]["content"]) + trail)
            for turn, lead, trail in self.answers
        ]


def is_plain(messages: Sequence[Message]) -> bool:
    """Whether the messages have nothing but role and content."""
    return all(len(message) == 2 for message in messages)


def learned(roles: Sequence[str], render: Callable[[list[Message]], tuple[str, list[Span]]]) -> Layout | None:
    """The layout that `render` gives to messages of these roles.

    None where it does more than put pieces around.
    """
    messages = [{"role": role, "content": f"\ufdd4{number}\ufdd5"} for number, role in enumerate(roles)]
    text, spans = render(messages)
    found = list(_STAND_IN.finditer(text))
    if [match[0] for match in found] != [message["content"] for message in messages]:
        return None
    borders = [0, *(border for match in found for border in match.span()), len(text)]
    around = tuple(text[a:b] for a, b in zip(borders[::2], borders[1::2], strict=True))
    turns = [number for number, role in enumerate(roles) if role == "assistant"]
    answers = tuple(
        (turn, found[turn].start() - start, end - found[turn].end())
        for turn, (start, end) in zip(turns, spans, strict=True)
    )
    inside = all(lead >= 0 and trail >= 0 for _, lead, trail in answers)
    return Layout(around, answers) if inside else None
