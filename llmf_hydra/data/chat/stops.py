"""Where an answer ends: the texts with which a chat template ends the turn of an assistant."""

from llmf_hydra.data.chat.template import Chat, index
from llmf_hydra.data.rows import BadRow, Message

MARK = "ANSWER-0"  # the content of a dialogue that is rendered to see what follows it
DIALOGUE: list[Message] = [{"role": "user", "content": "question"}, {"role": "assistant", "content": MARK}]


def turn_stops(chat: Chat) -> tuple[str, ...]:
    """The texts at which generation stops, beside the tokenizer's own end token.

    Those that the index names for a named template; of the tokenizer's own template, the special token that it
    writes after an answer.
    """
    if chat.name:
        return tuple(index()[chat.name].get("stop", ()))
    try:
        after = chat.render(DIALOGUE).rpartition(MARK)[2].lstrip()
    except BadRow:  # a template that wants more than these two turns: the end token alone stops it
        return ()
    return tuple(stop for stop in chat.stops if after.startswith(stop))[:1]
