"""Prompts word for word, and accuracies with their errors by hand."""

from statistics import stdev

import pytest

from llmf_hydra.evaluation.accuracy import Answer, accuracy, summarize
from llmf_hydra.evaluation.prompts import draw_examples, prompt
from llmf_hydra.evaluation.questions import Question, Subject

ONE = Question("How many?", ("one", "two"), "B")
TWO = Question("How few?", ("three", "four"), "A")
SUBJECT = Subject("counting", "the art of counting", None, (ONE,), (TWO,))


def test_a_prompt_in_english_without_and_with_an_example() -> None:
    bare = "The following are multiple choice questions (with answers) about the art of counting.\n\n"
    asked = "How many?\nA. one\nB. two\nAnswer:"
    assert prompt(SUBJECT, ONE, [], "en") == [{"role": "user", "content": bare + asked}]
    assert prompt(SUBJECT, ONE, [TWO], "en") == [
        {"role": "user", "content": bare + "How few?\nA. three\nB. four\nAnswer:"},
        {"role": "assistant", "content": "A"},
        {"role": "user", "content": asked},
    ]


def test_a_prompt_in_chinese() -> None:
    (asked,) = prompt(SUBJECT, ONE, [], "zh")
    opening = "以下是中国关于the art of counting考试的单项选择题，请选出其中的正确答案。\n\n"
    assert asked["content"] == f"{opening}How many?\nA. one\nB. two\n答案："


def test_the_seed_draws_the_examples() -> None:
    many = Subject(
        "counting", "counting", None, (ONE,), tuple(Question(str(n), ("a", "b"), "A") for n in range(9))
    )
    drawn = {seed: [one.text for one in draw_examples(many, 5, seed)] for seed in range(4)}
    assert all(len(set(texts)) == 5 for texts in drawn.values())
    assert len({tuple(texts) for texts in drawn.values()}) == 4
    assert [one.text for one in draw_examples(many, 5, 0)] == drawn[0]
    assert draw_examples(many, 0, 0) == [] and len(draw_examples(many, 20, 0)) == 9


def test_the_error_is_that_of_the_mean() -> None:
    right = [True, True, False, True, False, True, True]
    found = accuracy(right)
    assert found.accuracy == pytest.approx(100 * 5 / 7) and found.questions == 7
    assert found.stderr == pytest.approx(100 * stdev(right) / 7**0.5)
    assert accuracy([True]).stderr is None and str(accuracy([True])) == "100.00 (1 question)"


def test_a_summary_has_subjects_categories_and_the_average_over_questions() -> None:
    answers = [Answer("law", "Humanities", True), *[Answer("physics", "STEM", n == 0) for n in range(3)]]
    found = summarize([*answers, Answer("optics", "STEM", True)])
    assert found.average.accuracy == 60
    assert {name: of.accuracy for name, of in found.categories.items()} == {"Humanities": 100, "STEM": 50}
    assert {name: round(of.accuracy, 2) for name, of in found.subjects.items()} == {
        "law": 100,
        "physics": 33.33,
        "optics": 100,
    }
    assert found.lines()[-1].strip() == "average: 60.00 ± 24.49 (5 questions)"
    assert summarize([Answer("law", None, True)]).categories == {}
