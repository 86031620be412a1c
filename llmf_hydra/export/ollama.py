"""A chat template as Ollama's Modelfile has it: a text in Go's template language that writes the same dialogues.

What stands between the contents is read off the template: dialogues of marks are rendered and cut at the marks. The
result is compared with what the template itself writes; one that Ollama's language can't express so gets no TEMPLATE,
and Ollama then takes the one that the tokenizer's files hold.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from llmf_hydra.data.chat.render import render_prompt
from llmf_hydra.data.chat.template import Chat
from llmf_hydra.data.rows import BadRow, Message

CONTEXT = 4096  # tokens; Ollama reserves memory for so many
_SYSTEM, _FIRST, _ANSWER, _SECOND = MARKS = (
    "MARK-OF-SYSTEM",
    "MARK-OF-USER",
    "MARK-OF-ANSWER",
    "MARK-OF-NEXT",
)


@dataclass(frozen=True)
class GoTemplate:
    """What is written before, between and after the contents of a dialogue."""

    before: str  # where there is no system message
    system: tuple[str, str]  # around the system message; after the user's opening where it is `within`
    within: bool  # the system message is a part of the first user message
    user: tuple[str, str]  # around a user message, with what opens the answer at its end
    answer: tuple[str, str]  # around an answer

    def text(self) -> str:
        """The template in Go's language."""
        system = f"{self.system[0]}{{{{ .System }}}}{self.system[1]}"
        opening, closing = self.user
        if self.within:
            inner = f"{self.system[0]}{{{{ $.System }}}}{self.system[1]}"
            head = self.before
            said = (
                f"{opening}{{{{ if and $.System (eq $i 1) }}}}{inner}{{{{ end }}}}{{{{ .Content }}}}{closing}"
            )
            each = "{{ range $i, $message := .Messages }}"
        else:
            otherwise = f"{{{{ else }}}}{self.before}" if self.before else ""
            head = f"{{{{ if .System }}}}{system}{otherwise}{{{{ end }}}}"
            said = f"{opening}{{{{ .Content }}}}{closing}"
            each = "{{ range .Messages }}"
        answered = f"{self.answer[0]}{{{{ .Content }}}}{self.answer[1]}"
        return (
            f'{head}{each}{{{{ if eq .Role "user" }}}}{said}'
            f'{{{{ else if eq .Role "assistant" }}}}{answered}{{{{ end }}}}{{{{ end }}}}'
        )

    def render(self, messages: Sequence[Message]) -> str:
        """What the text above writes for a dialogue."""
        system = messages[0]["content"] if messages[0]["role"] == "system" else ""
        wrapped = f"{self.system[0]}{system}{self.system[1]}" if system else ""
        written = self.before if self.within or not system else wrapped
        for number, message in enumerate(messages):
            if message["role"] == "user":
                inner = wrapped if self.within and number == 1 else ""
                written += f"{self.user[0]}{inner}{message['content']}{self.user[1]}"
            elif message["role"] == "assistant":
                written += f"{self.answer[0]}{message['content']}{self.answer[1]}"
        return written


def go_template(chat: Chat) -> GoTemplate | None:
    """The template in Ollama's terms; None where it can't be put so, as where it writes today's date."""
    if "strftime_now" in chat.text:
        return None
    try:
        bare = _cut(chat, [_user(_FIRST), _assistant(_ANSWER), _user(_SECOND)])
        whole = _cut(chat, [_system(_SYSTEM), _user(_FIRST), _assistant(_ANSWER), _user(_SECOND)])
    except (BadRow, ValueError):
        return None
    before, closed, between, closing = bare
    opening = _common_end(before, between)
    if not closed.startswith(closing):
        return None
    answer = (closed.removeprefix(closing), between.removesuffix(opening))
    user = (opening, closing)
    made = _outside(before, whole, user, answer) or _within(before, whole, user, answer)
    return made if made is not None and _agree(made, chat) else None


def _outside(
    before: str, whole: Sequence[str], user: tuple[str, str], answer: tuple[str, str]
) -> GoTemplate | None:
    """A system message before the first user message."""
    head, after, *_ = whole
    opening = user[0]
    if not after.endswith(opening):
        return None
    around = (head, after.removesuffix(opening))
    return GoTemplate(before.removesuffix(opening), around, False, user, answer)


def _within(
    before: str, whole: Sequence[str], user: tuple[str, str], answer: tuple[str, str]
) -> GoTemplate | None:
    """A system message within the first user message."""
    head, after, *_ = whole
    if not head.startswith(before):
        return None
    around = (head.removeprefix(before), after)
    return GoTemplate(before.removesuffix(user[0]), around, True, user, answer)


def _agree(made: GoTemplate, chat: Chat) -> bool:
    """Whether both write the same dialogues, as far as the model's answer is due next."""
    turns = [_user("one"), _assistant("two"), _user("three"), _assistant("four"), _user("five")]
    dialogues = [turns[:1], turns[:3], turns]
    dialogues += [[_system("zero"), *dialogue] for dialogue in dialogues]
    try:
        return all(made.render(dialogue) == render_prompt(chat, dialogue, None) for dialogue in dialogues)
    except BadRow:
        return False


def modelfile(chat: Chat | None, stops: Sequence[str], *, begin: str, longest: int | None) -> str:
    """The Modelfile of a model in its own folder. `stops` end an answer; `begin` is the token that the tokenizer itself
    puts before each text, as Ollama does too; `longest` is what the model can read, in tokens."""
    lines = ["FROM ."]
    made = go_template(chat) if chat is not None else None
    if made is not None:
        text = made.text()
        if begin and text.startswith(begin):
            text = text.removeprefix(begin)
        lines += ["", f'TEMPLATE """{text}"""']
    elif chat is not None:
        lines += [
            "",
            "# The chat template has no equal in Ollama's language: the one in tokenizer_config.json counts.",
        ]
    system = chat.default_system or chat.own_system if chat is not None else None
    if system:
        lines += ["", f'SYSTEM """{system}"""']
    lines += ["", *(f'PARAMETER stop "{_quoted(stop)}"' for stop in stops)]
    lines.append(f"PARAMETER num_ctx {min(longest or CONTEXT, CONTEXT)}")
    return "\n".join(lines) + "\n"


def _cut(chat: Chat, messages: list[Message]) -> list[str]:
    """A dialogue's text, cut at the marks. Raises ValueError where one is missing, and BadRow."""
    rest, parts = render_prompt(chat, messages, None), []
    for message in messages:
        part, found, rest = rest.partition(message["content"])
        if not found:
            raise ValueError(message["content"])
        parts.append(part)
    if any(mark in rest for mark in MARKS):
        raise ValueError(rest)
    return [*parts, rest]


def _common_end(one: str, other: str) -> str:
    pairs = zip(reversed(one), reversed(other), strict=False)
    length = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
    return one[len(one) - length :]


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _system(content: str) -> Message:
    return {"role": "system", "content": content}


def _user(content: str) -> Message:
    return {"role": "user", "content": content}


def _assistant(content: str) -> Message:
    return {"role": "assistant", "content": content}
