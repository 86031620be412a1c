"""What each kind of row becomes: its texts, and from their tokens the columns that a trainer reads."""

from collections.abc import Sequence
from dataclasses import dataclass

from llmf_hydra.data.chat.render import Rendered, render_completion, render_dialogue, render_prompt
from llmf_hydra.data.chat.template import Chat
from llmf_hydra.data.chat.tools import for_template
from llmf_hydra.data.rows import Message, Row
from llmf_hydra.data.tokenize import cutoff
from llmf_hydra.data.tokenize.encode import Encoded, Encoder, as_plain

TOKEN_COLUMNS = {
    "text": ("input_ids",),
    "dialogue": ("input_ids",),
    "preference": ("prompt_ids", "chosen_ids", "rejected_ids"),
    "feedback": ("prompt_ids", "completion_ids"),
    "prompt": ("prompt_ids",),
}
"""Columns of token ids; text and dialogue get `labels` beside them, feedback gets `label`."""


@dataclass(slots=True)
class Example:
    """One row of the tokenized dataset, and what was lost on the way."""

    ids: dict[str, list[int]]
    trained: list[tuple[int, int]]  # spans of `input_ids`, or empty for the other kinds
    trained_tokens: int
    length: int
    lost: int = 0  # tokens cut
    answers_cut: int = 0  # answers that lost their end


@dataclass(frozen=True)
class Setup:
    """All that decides what a row becomes."""

    kind: str
    encoder: Encoder
    chat: Chat | None  # None for plain text
    cutoff_len: int
    train_on_prompt: bool = False
    mask_history: bool = False
    split_long: bool = False  # plain text: go on in a new row instead of cutting
    bos: tuple[int, ...] = ()  # put before each plain text
    eos: tuple[int, ...] = ()
    media: tuple[str, ...] = ()  # columns of paths that go along
    special: tuple[str, ...] = ()  # special tokens that are plain text where a row says them
    watched: tuple[str, ...] = ()  # special tokens that are special there, and counted

    def texts(self, row: Row) -> list[Rendered]:
        """The texts to be tokenized for a row: two for a ranked one, else one. Raises BadRow."""
        if self.kind == "text":
            return [Rendered(as_plain(row.text or "", self.special), [], [])]
        assert self.chat is not None
        return self._written(row, row.prompt)

    def prompt_ids(self, row: Row) -> list[int]:
        """Token ids of a prompt, uncut, up to where the answer begins. Raises BadRow."""
        return self._encoded(self.texts(row)[0]).ids

    def answered_ids(self, row: Row) -> list[int]:
        """Token ids of a dialogue, uncut, up to the end of its last answer. Raises BadRow."""
        assert self.chat is not None
        prompt, tools = for_template(self.chat, self.chat.with_system(self._plain_all(row.prompt)), row.tools)
        encoded = self._encoded(render_dialogue(self.chat, prompt, tools))
        return encoded.ids[: encoded.answers[-1][1]]

    @property
    def notes(self) -> list[str]:
        """What is to be told of the template beside this tokenizer: ends of turns that are several tokens."""
        lines: list[str] = []
        for stop in self.chat.turn_ends if self.chat else ():
            if (count := len(self._tokens(stop))) > 1:
                lines.append(
                    f"data.template={self.chat.name if self.chat else None} ends a turn with {stop}, which is {count} "
                    "tokens of this tokenizer: add it to the tokenizer's special tokens, or choose a template that fits"
                )
        return lines

    def says_special(self, row: Row) -> bool:
        """Whether a text of the row holds what the tokenizer takes for a special token."""
        messages = [*row.prompt, *(message for answer in row.answers for message in answer)]
        texts = [row.text or "", *(message["content"] for message in messages)]
        return any(token in text for text in texts for token in self.watched)

    def _written(self, row: Row, messages: Sequence[Message]) -> list[Rendered]:
        chat = self.chat
        assert chat is not None
        prompt, tools = for_template(chat, chat.with_system(self._plain_all(messages)), row.tools)
        if self.kind == "prompt":
            return [Rendered(render_prompt(chat, prompt, tools), [], [])]
        answers = [for_template(chat, self._plain_all(answer), None)[0] for answer in row.answers]
        if self.kind == "dialogue":
            return [render_dialogue(chat, [*prompt, *answers[0]], tools)]
        return [render_completion(chat, prompt, answer, tools) for answer in answers]

    def _plain_all(self, messages: Sequence[Message]) -> list[Message]:
        """The messages, with the special tokens that they say marked as plain text."""
        if not self.special:
            return list(messages)
        return [{**message, "content": as_plain(message["content"], self.special)} for message in messages]

    def examples(self, row: Row, texts: Sequence[Rendered], encodings: Sequence[object]) -> list[Example]:
        """The rows of the tokenized dataset that one row becomes: one, or several pieces of a long text."""
        encoded = [self.encoder.spans(e, t.text, t.answers) for e, t in zip(encodings, texts, strict=True)]
        if self.kind == "text":
            return self._text(encoded[0])
        if self.kind == "dialogue":
            return [self._dialogue(row, texts[0], encoded[0])]
        if self.kind == "prompt":
            return [self._prompt(row, texts[0], encoded[0])]
        return [self._answers(row, texts, encoded)]

    def _text(self, encoded: Encoded) -> list[Example]:
        ids = [*self.bos, *encoded.ids, *self.eos]
        limit = self.cutoff_len
        parts = [ids[i : i + limit] for i in range(0, len(ids), limit)] if self.split_long else [ids[:limit]]
        lost = 0 if self.split_long else max(0, len(ids) - limit)
        return [Example({"input_ids": part}, [(0, len(part))], len(part), len(part), lost) for part in parts]

    def _dialogue(self, row: Row, text: Rendered, encoded: Encoded) -> Example:
        length, answers_cut = len(encoded.ids), 0
        if length > self.cutoff_len:
            text, encoded, answers_cut = self._shorter(row, text, encoded)
        if self.train_on_prompt:
            trained = [(0, len(encoded.ids))]
        else:
            trained = [span for span, weight in zip(encoded.answers, text.weights, strict=True) if weight]
            trained = trained[-1:] if self.mask_history else trained
        count = sum(end - start for start, end in trained)
        lost = max(0, length - len(encoded.ids))
        return Example({"input_ids": encoded.ids}, trained, count, len(encoded.ids), lost, answers_cut)

    def _prompt(self, row: Row, text: Rendered, encoded: Encoded) -> Example:
        ids = cutoff.cut(
            encoded.ids, self.cutoff_len, self._question(row.prompt, text.text, len(encoded.ids))
        )
        return Example({"prompt_ids": ids}, [], len(ids), len(ids), len(encoded.ids) - len(ids))

    def _answers(self, row: Row, texts: Sequence[Rendered], encoded: list[Encoded]) -> Example:
        """Prompt and one or two completions; the prompt is the same tokens before each."""
        prompts = [e.ids[: e.answers[0][0]] for e in encoded]
        if any(prompt != prompts[0] for prompt in prompts):
            encoded = [self._pieces(text) for text in texts]
            prompts = [encoded[0].ids[: encoded[0].answers[0][0]]]
        answers = [e.ids[e.answers[0][0] : e.answers[0][1]] for e in encoded]
        whole = len(prompts[0]) + sum(map(len, answers))
        before = answers
        prompt, answers = self._fitted(row, texts, prompts[0], answers)
        answers_cut = sum(len(new) < len(old) for new, old in zip(answers, before, strict=True))
        kept = len(prompt) + sum(map(len, answers))
        names = TOKEN_COLUMNS[self.kind]
        trained = sum(map(len, answers)) if all(answers) else 0
        length = len(prompt) + max(map(len, answers))
        ids = dict(zip(names, [prompt, *answers], strict=True))
        return Example(ids, [], trained, length, whole - kept, answers_cut)

    def _pieces(self, text: Rendered) -> Encoded:
        """Prompt and answer tokenized apart."""
        start, end = text.answers[0]
        prompt, answer = (self._tokens(text.text[a:b]) for a, b in ((0, start), (start, end)))
        return Encoded([*prompt, *answer], [(len(prompt), len(prompt) + len(answer))])

    def _fitted(
        self, row: Row, texts: Sequence[Rendered], prompt: list[int], answers: list[list[int]]
    ) -> tuple[list[int], list[list[int]]]:
        longest = max(map(len, answers))
        if len(prompt) + longest <= self.cutoff_len:
            return prompt, answers
        region = self._question(row.prompt, texts[0].text[: texts[0].answers[0][0]], len(prompt))
        before, kept = cutoff.shares(len(prompt), longest, self.cutoff_len, region)
        short = [
            cutoff.cut_answer(answer, kept, self._stop(text, text.answers[0][1]))
            for answer, text in zip(answers, texts, strict=True)
        ]
        return cutoff.cut(prompt, before, region), short

    def _shorter(self, row: Row, text: Rendered, encoded: Encoded) -> tuple[Rendered, Encoded, int]:
        """A dialogue that fits: without old turns, then with a shorter last question and answer; and whether
        (0 or 1) the answer lost its end."""
        messages, latest = [*row.prompt], text

        def encode(kept: list[Message]) -> Encoded:
            nonlocal latest
            latest = self._written(row, kept)[0]
            return self._encoded(latest)

        messages, encoded = cutoff.newest_that_fit(messages, encode, encoded, self.cutoff_len)
        if len(encoded.ids) <= self.cutoff_len:
            return latest, encoded, 0
        (start, end), (first, last) = (
            encoded.answers[-1],
            (encoded := self._both_cut(messages, latest, encoded)).answers[-1],
        )
        latest = Rendered(latest.text, latest.answers[-1:], latest.weights[-1:])
        return latest, encoded, int(last - first < end - start)

    def _both_cut(self, messages: Sequence[Message], text: Rendered, encoded: Encoded) -> Encoded:
        start, end = encoded.answers[-1]
        region = self._question(messages, text.text[: text.answers[-1][0]], start)
        before, kept = cutoff.shares(start, end - start, self.cutoff_len, region)
        prompt = cutoff.cut(encoded.ids[:start], before, region)
        stop = self._stop(text, text.answers[-1][1])
        answer = cutoff.cut_answer(encoded.ids[start:end], kept, stop)
        return Encoded([*prompt, *answer], [(len(prompt), len(prompt) + len(answer))])

    def _question(self, messages: Sequence[Message], text: str, length: int) -> tuple[int, int]:
        """The tokens of the last user message within a prompt's text of `length` tokens."""
        content = next(
            (m["content"].strip() for m in reversed(messages) if m["role"] in ("user", "tool")), ""
        )
        at = text.rfind(content)
        if not content or at < 0:
            return min(1, length), length
        tail = len(self._tokens(text[at + len(content) :]))
        return min(len(self._tokens(text[:at])), length - tail), length - tail

    def _stop(self, text: Rendered, end: int) -> int:
        """How many tokens end the turn of an answer that ends at a character."""
        assert self.chat is not None
        stop = next((s for s in self.chat.stops if text.text.endswith(s, 0, end)), "")
        return len(self._tokens(stop)) if stop else 0

    def _encoded(self, text: Rendered) -> Encoded:
        return self.encoder.spans(self.encoder.batch([text.text])[0], text.text, text.answers)

    def _tokens(self, text: str) -> list[int]:
        return self.encoder.spans(self.encoder.batch([text])[0], text, []).ids
