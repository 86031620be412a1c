"""The demo data sets: shapes, counts, answers that can be worked out, and that they can be made again."""

from __future__ import annotations

import json
import operator
import re
import subprocess
import sys
from collections import Counter
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from statistics import mean, median

import pytest

DATA = Path(__file__).resolve().parents[2] / "data"
SETS = ("demo_preference", "demo_instruct", "demo_text", "demo_feedback", "demo_grpo")
PLAIN = re.compile(r"(\d+) (plus|minus|times|divided by) (\d+)")
PERCENT = re.compile(r"What is (\d+) percent of (\d+)\?")
STORY = (
    (re.compile(r"\w+ has (\d+) (\w+) and buys (\d+) more"), "plus"),
    (re.compile(r"\w+ has (\d+) (\w+) and gives away (\d+)"), "minus"),
    (re.compile(r"\w+ fills (\d+) (bags) with (\d+) "), "times"),
    (re.compile(r"\w+ shares (\d+) (\w+) equally among (\d+) friends"), "divided by"),
    (re.compile(r"\w+ had (\d+) (\w+) and lost (\d+) of them"), "minus"),
    (re.compile(r"\w+ finds (\d+) (\w+) on Monday and (\d+) on Tuesday"), "plus"),
)
FACTORS = {
    ("kilometres", "metres"): 1000,
    ("metres", "centimetres"): 100,
    ("kilograms", "grams"): 1000,
    ("hours", "minutes"): 60,
    ("minutes", "seconds"): 60,
    ("days", "hours"): 24,
    ("weeks", "days"): 7,
    ("litres", "millilitres"): 1000,
    ("euros", "cents"): 100,
    ("centimetres", "millimetres"): 10,
    ("years", "months"): 12,
    ("tonnes", "kilograms"): 1000,
}
UNIT = (
    re.compile(r"How many (?P<small>\w+) are there in (?P<n>\d+) (?P<large>\w+)\?"),
    re.compile(r"Convert (?P<n>\d+) (?P<large>\w+) to (?P<small>\w+)\."),
    re.compile(r"(?P<n>\d+) (?P<large>\w+): how many (?P<small>\w+) is that\?"),
)
CLOCK = re.compile(r"starts at (\d+):(\d+) and ends at (\d+):(\d+)\. How many minutes")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
WEEKDAY = re.compile(r"Today is (\w+)\. What day (?:will it be in (\d+) days|was it (\d+) days ago)\?")
EXTREME = re.compile(r"Which is the (largest|smallest) of these numbers: ([\d, ]+)\?")
SERIES = re.compile(r"What number comes next: ([\d, ]+)\?")
PARITY = re.compile(r"Is (\d+) even or odd\?")
LETTERS = re.compile(r"How many letters are in the word '(\w+)'\?")


def load(name: str) -> list[dict]:
    """The rows of one shipped set."""
    return [json.loads(line) for line in (DATA / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def preference() -> list[dict]:
    return load("demo_preference")


@pytest.fixture(scope="module")
def instruct() -> list[list[dict]]:
    return [row["messages"] for row in load("demo_instruct")]


@pytest.fixture(scope="module")
def feedback() -> list[dict]:
    return load("demo_feedback")


def calculate(a: int, word: str, b: int) -> Fraction:
    """The result of a sum given in words."""
    sums = {"plus": operator.add, "minus": operator.sub, "times": operator.mul, "divided by": Fraction}
    return Fraction(sums[word](a, b))


def next_in_series(numbers: list[int]) -> int:
    """The number that goes on with equal steps or with equal factors."""
    steps = {b - a for a, b in pairwise(numbers)}
    if len(steps) == 1:
        return numbers[-1] + steps.pop()
    factors = {Fraction(b, a) for a, b in pairwise(numbers)}
    assert len(factors) == 1
    return int(numbers[-1] * factors.pop())


def expected(question: str) -> str | None:
    """The answer to a question that can be worked out, read from its words alone; None for others."""
    if match := PLAIN.search(question):
        return str(calculate(int(match[1]), match[2], int(match[3])))
    if match := PERCENT.search(question):
        return str(Fraction(int(match[1]) * int(match[2]), 100))
    for pattern, word in STORY:
        if match := pattern.match(question):
            return str(calculate(int(match[1]), word, int(match[3])))
    for pattern in UNIT:
        if match := pattern.fullmatch(question):
            return str(int(match["n"]) * FACTORS[match["large"], match["small"]])
    if match := CLOCK.search(question):
        hours, minutes = int(match[3]) - int(match[1]), int(match[4]) - int(match[2])
        return str(hours * 60 + minutes)
    if match := WEEKDAY.fullmatch(question):
        return DAYS[(DAYS.index(match[1]) + int(match[2] or 0) - int(match[3] or 0)) % 7]
    if match := EXTREME.fullmatch(question):
        return str((max if match[1] == "largest" else min)(int(n) for n in match[2].split(", ")))
    if match := SERIES.fullmatch(question):
        return str(next_in_series([int(n) for n in match[1].split(", ")]))
    if match := PARITY.fullmatch(question):
        return "odd" if int(match[1]) % 2 else "even"
    if match := LETTERS.fullmatch(question):
        return str(len(match[1]))
    return None


def says(answer: str, value: str) -> bool:
    """Whether the first sentence of an answer states `value`: a number after its last "is", or a word."""
    first = re.split(r"(?<=[.!?]) ", answer)[0]
    if value.isdigit():
        return value in re.findall(r"\d+", first.split(" is ")[-1])
    return re.search(rf"\b{value}\b", first) is not None


def user_turns(messages: list[dict]) -> list[str]:
    return [message["content"] for message in messages if message["role"] == "user"]


def test_the_generator_writes_the_shipped_bytes(tmp_path: Path) -> None:
    command = [sys.executable, "-B", str(DATA / "make_demo.py"), "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    for name in SETS:
        assert (tmp_path / f"{name}.jsonl").read_bytes() == (DATA / f"{name}.jsonl").read_bytes()
        assert f"{name}: {len(load(name))} rows" in done.stdout


def test_files_are_small_utf8_lines() -> None:
    total = 0
    for name in SETS:
        raw = (DATA / f"{name}.jsonl").read_bytes()
        total += len(raw)
        assert raw.endswith(b"\n")
        assert b"\r" not in raw
        assert max(len(line) for line in raw.decode("utf-8").splitlines()) <= 2000
    assert total < 1_500_000


def test_dataset_info_names_files_and_columns() -> None:
    info = json.loads((DATA / "dataset_info.json").read_text(encoding="utf-8"))
    assert set(info) == set(SETS)
    for name, entry in info.items():
        assert entry["file_name"] == f"{name}.jsonl"
        assert set(entry["columns"].values()) == set(load(name)[0])
    assert info["demo_preference"]["ranking"] is True
    for name in ("demo_instruct", "demo_feedback"):
        assert info[name]["formatting"] == "openai"
        assert info[name]["tags"]["assistant_tag"] == "assistant"


def test_preference_shape(preference: list[dict]) -> None:
    assert len(preference) >= 480
    for row in preference:
        assert set(row) == {"instruction", "input", "chosen", "rejected"}
        assert row["instruction"].strip()
        assert row["chosen"].strip() != row["rejected"].strip()
        assert len(f"{row['instruction']} {row['input']}".split()) <= 60
        assert 3 <= len(row["rejected"].split()) <= 40
        assert 1 <= len(row["chosen"].split()) <= 40
        if len(row["chosen"].split()) < 3:
            asked = r"one word|yes or no|JSON|comma|City, Country|title"
            assert re.search(asked, row["instruction"]), row
    prompts = Counter((row["instruction"], row["input"]) for row in preference)
    assert max(prompts.values()) == 1
    assert len({row["rejected"] for row in preference}) > 0.95 * len(preference)


def test_length_alone_does_not_give_the_better_answer_away(preference: list[dict]) -> None:
    good = [len(row["chosen"].split()) for row in preference]
    bad = [len(row["rejected"].split()) for row in preference]
    assert 0.8 < mean(good) / mean(bad) < 1.25
    assert 0.3 < mean(a > b for a, b in zip(good, bad, strict=True)) < 0.7


def test_instruct_shape(instruct: list[list[dict]]) -> None:
    assert len(instruct) >= 1100
    assert sum(len(user_turns(messages)) > 1 for messages in instruct) >= 250
    assert sum(messages[0]["role"] == "system" for messages in instruct) >= 200
    assert all(len(user_turns(messages)) <= 4 for messages in instruct)
    words = [sum(len(message["content"].split()) for message in messages) for messages in instruct]
    assert max(words) <= 150
    assert 25 <= median(words) <= 50
    assert max(Counter(user_turns(messages)[0] for messages in instruct).values()) == 1


def test_roles_alternate_and_end_with_the_assistant(instruct: list[list[dict]], feedback: list[dict]) -> None:
    for messages in [*instruct, *(row["messages"] for row in feedback)]:
        turns = messages[1:] if messages[0]["role"] == "system" else messages
        assert [turn["role"] for turn in turns] == ["user", "assistant"] * (len(turns) // 2)
        assert len(turns) >= 2
        assert all(set(message) == {"role", "content"} and message["content"].strip() for message in messages)


def test_system_messages_shape_the_answer(instruct: list[list[dict]]) -> None:
    checked = Counter()
    for system, *turns in instruct:
        if system["role"] != "system":
            continue
        answer = turns[-1]["content"]
        if re.search(r"one word|single word", system["content"], re.IGNORECASE):
            assert re.fullmatch(r"[^\s.,!?]+", answer), answer
            checked["word"] += 1
        elif "JSON" in system["content"]:
            assert isinstance(json.loads(answer), dict)
            checked["json"] += 1
        elif "capital letters" in system["content"].lower():
            assert answer == answer.upper()
            checked["capitals"] += 1
        elif "exactly five words" in system["content"]:
            assert len(answer.split()) == 5, answer
            checked["five"] += 1
    assert min(checked[key] for key in ("word", "json", "capitals", "five")) >= 5


def test_the_readme_gives_the_true_counts() -> None:
    readme = (DATA / "README.md").read_text(encoding="utf-8")
    for name in SETS:
        assert f"| `{name}` | {len(load(name)):,} |" in readme


def test_text_shape() -> None:
    texts = [row["text"] for row in load("demo_text")]
    assert len(texts) >= 300
    assert all(40 <= len(text.split()) <= 120 for text in texts)
    openings = Counter(" ".join(text.split()[:6]) for text in texts)
    assert max(openings.values()) == 1
    sentences = Counter(sentence for text in texts for sentence in re.split(r"(?<=[.!?]) ", text))
    assert max(sentences.values()) == 1


def test_feedback_shape(feedback: list[dict]) -> None:
    assert len(feedback) >= 400
    assert all(set(row) == {"messages", "label"} and isinstance(row["label"], bool) for row in feedback)
    assert 0.4 < mean(row["label"] for row in feedback) < 0.6
    prompts = Counter((json.dumps(row["messages"][:-1]), row["label"]) for row in feedback)
    assert max(prompts.values()) == 1
    whole = Counter(json.dumps(row["messages"]) for row in feedback)
    assert max(whole.values()) == 1
    assert any(row["messages"][0]["role"] == "system" for row in feedback)


def test_preferred_answers_are_worked_out_right(preference: list[dict]) -> None:
    checked = 0
    for row in preference:
        if (value := expected(row["instruction"])) is not None:
            assert says(row["chosen"], value), row
            assert not row["chosen"].startswith(row["rejected"]), row
            checked += 1
    assert checked >= 80


def test_instruct_answers_are_worked_out_right(instruct: list[list[dict]]) -> None:
    checked = 0
    for messages in instruct:
        question, answer = user_turns(messages)[0], messages[-1]["content"]
        if len(user_turns(messages)) == 1 and (value := expected(question)) is not None:
            plain = messages[0]["role"] != "system"
            assert says(answer, value) if plain else value.lower() in answer.lower(), messages
            checked += 1
    assert checked >= 80


def test_chained_sums_are_worked_out_right(instruct: list[list[dict]]) -> None:
    checked = 0
    for messages in instruct:
        if not messages[0]["content"].startswith("Let us do some sums."):
            continue
        value = Fraction(expected(messages[0]["content"]) or 0)
        for i in range(0, len(messages), 2):
            ask, answer = messages[i]["content"], messages[i + 1]["content"]
            number = int((re.findall(r"\d+", ask) or ["2"])[0])
            if "double" in ask:
                value *= 2
            elif ask.startswith("Add"):
                value += number
            elif ask.startswith("Take away"):
                value -= number
            elif ask.startswith("Multiply"):
                value *= number
            assert value >= 0
            assert says(answer, str(value)), messages
        checked += 1
    assert checked >= 30


def test_feedback_labels_agree_with_worked_out_answers(feedback: list[dict]) -> None:
    checked = Counter()
    for row in feedback:
        *before, answer = row["messages"]
        if before[0]["role"] == "system" or (value := expected(before[-1]["content"])) is None:
            continue
        if row["label"]:
            assert says(answer["content"], value), row
        elif re.fullmatch(r"[\w ]+ is \d+\.", answer["content"]):
            assert not says(answer["content"], value), row
        checked[row["label"]] += 1
    assert min(checked.values()) >= 15


def test_sorted_lists_are_sorted(preference: list[dict]) -> None:
    checked = 0
    for row in preference:
        if row["instruction"].startswith("Sort these numbers"):
            numbers = [int(n) for n in row["input"].split(", ")]
            right = sorted(numbers, reverse="largest to" in row["instruction"])
            assert row["chosen"] == ", ".join(map(str, right))
            checked += 1
        elif row["instruction"].startswith("Put these words in alphabetical order"):
            assert row["chosen"].split(", ") == sorted(row["input"].split(", "))
            checked += 1
    assert checked >= 8
