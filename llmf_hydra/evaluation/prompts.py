"""From a question to the messages of a prompt: few-shot examples as earlier turns, in English or Chinese.

The wording is that of the benchmarks (Hendrycks et al. 2021; Huang et al. 2023, C-Eval) in LLaMA-Factory's form, so
that results compare.
"""

import random
from dataclasses import dataclass

from llmf_hydra.evaluation.questions import Question, Subject

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Wording:
    """How a question is put."""

    opening: str  # before the first question; names the {subject}
    answer: str  # after the choices


WORDINGS = {
    "en": Wording(
        "The following are multiple choice questions (with answers) about {subject}.\n\n", "\nAnswer:"
    ),
    "zh": Wording("以下是中国关于{subject}考试的单项选择题，请选出其中的正确答案。\n\n", "\n答案："),
}


def draw_examples(subject: Subject, n_shot: int, seed: int) -> list[Question]:
    """The examples before each question of a subject: `n_shot` of its examples, drawn by the seed, or all it has."""
    count = min(n_shot, len(subject.examples))
    return random.Random(f"{seed} {subject.key}").sample(list(subject.examples), count)


def prompt(subject: Subject, question: Question, examples: list[Question], lang: str) -> Messages:
    """The messages up to where the answer's letter is due."""
    wording = WORDINGS[lang]
    messages: Messages = []
    for example in examples:
        messages += [
            {"role": "user", "content": _asked(example, wording)},
            {"role": "assistant", "content": example.answer},
        ]
    messages.append({"role": "user", "content": _asked(question, wording)})
    messages[0]["content"] = wording.opening.format(subject=subject.name) + messages[0]["content"]
    return messages


def _asked(question: Question, wording: Wording) -> str:
    choices = [
        f"\n{letter}. {choice}" for letter, choice in zip(question.letters, question.choices, strict=True)
    ]
    return "".join([question.text, *choices, wording.answer])
