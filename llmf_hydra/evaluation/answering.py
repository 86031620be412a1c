"""Which letter a model puts after a prompt: the choices are compared by the probability of their first token."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from llmf_hydra.data.chat.render import render_prompt
from llmf_hydra.data.chat.template import Chat
from llmf_hydra.errors import Problem, Refused
from llmf_hydra.evaluation.prompts import draw_examples, prompt
from llmf_hydra.evaluation.questions import Question, Subject

PLAIN = "fewshot"  # the template without marks of turns: its text begins as one of pre-training does


@dataclass(frozen=True)
class Asked:
    """A question as the model reads it."""

    subject: Subject
    number: int  # within its subject, from 0
    ids: list[int]
    shots: int  # examples that stand before it


@dataclass(frozen=True)
class Chosen:
    """The letter that the model chose, and the probability of each among the choices."""

    letter: str
    probabilities: dict[str, float]


class Asker:
    """Writes the prompts of a task. `most_tokens` is what the model can read: examples that don't fit are left out."""

    def __init__(
        self,
        chat: Chat,
        tokenizer: PreTrainedTokenizerBase,
        *,
        n_shot: int,
        seed: int,
        lang: str,
        most_tokens: int | None = None,
    ):
        self._chat, self._tokenizer, self._most = chat, tokenizer, most_tokens
        self._n_shot, self._seed, self._lang = n_shot, seed, lang

    def ask(self, subject: Subject) -> Iterator[Asked]:
        """The prompts of a subject's questions. Raises Refused for a question that the model can't read whole."""
        drawn = draw_examples(subject, self._n_shot, self._seed)
        for number, question in enumerate(subject.questions):
            shots = len(drawn)
            while not self._fits(ids := self._prompt(subject, question, drawn[:shots])) and shots:
                shots -= 1
            if not self._fits(ids):
                what = f"question {number + 1} of {subject.key} has {len(ids)} tokens, and the model reads {self._most}"
                raise Refused(
                    [Problem("evaluation.task", subject.key, what, "evaluate a model that reads more")]
                )
            yield Asked(subject, number, ids, shots)

    def _fits(self, ids: list[int]) -> bool:
        return self._most is None or len(ids) <= self._most

    def _prompt(self, subject: Subject, question: Question, examples: list[Question]) -> list[int]:
        messages = prompt(subject, question, examples, self._lang)
        return self._ids(render_prompt(self._chat, self._chat.with_system([*messages]), None))

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        if self._chat.name != PLAIN:
            return ids
        begin: list[int] = self._tokenizer("")["input_ids"][:1]
        return [*begin, *ids] if begin == [self._tokenizer.bos_token_id] else ids


def letter_ids(tokenizer: PreTrainedTokenizerBase, letters: str) -> dict[str, int]:
    """The token that begins each letter as an answer. Raises Refused where two letters begin alike."""
    ids = {letter: tokenizer.encode(letter, add_special_tokens=False)[-1] for letter in letters}
    if len(set(ids.values())) < len(ids):
        what = f"its tokenizer writes two of the letters {', '.join(letters)} with the same token"
        raise Refused([Problem("evaluation.task", letters, what, "evaluate another model")])
    return ids


def chosen(logits: torch.Tensor, batch: Sequence[Asked], letters: dict[str, int]) -> list[Chosen]:
    """What the model chooses for each question, by the logits after its prompt, (questions, vocabulary)."""
    return [_chosen(row, asked, letters) for row, asked in zip(logits, batch, strict=True)]


def _chosen(scores: torch.Tensor, asked: Asked, letters: dict[str, int]) -> Chosen:
    choices = asked.subject.questions[asked.number].letters
    probabilities = scores[[letters[letter] for letter in choices]].softmax(dim=0).tolist()
    best = max(range(len(choices)), key=probabilities.__getitem__)
    return Chosen(
        choices[best], {letter: round(p, 6) for letter, p in zip(choices, probabilities, strict=True)}
    )
