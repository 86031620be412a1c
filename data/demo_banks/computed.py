"""Items whose answers are worked out: arithmetic, units, sorting, dates, letters and number series."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from .items import Item, load_bank, upper_first, with_article

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
LISTS = load_bank("lists")
MONTHS: list[tuple[str, int]] = [(name, length) for name, length in LISTS["months"]]
UNITS: list[tuple[str, str, int]] = [(large, small, factor) for large, small, factor in LISTS["units"]]
NAMES, THINGS, WORDS = (list[str](LISTS[key]) for key in ("names", "things", "words"))
DURATIONS = {
    30: "half an hour",
    45: "three quarters of an hour",
    60: "exactly one hour",
    75: "an hour and a quarter",
    90: "an hour and a half",
    105: "an hour and three quarters",
    120: "exactly two hours",
}


def near_miss(rng: Random, value: int) -> int:
    """A wrong result that is near enough to be taken for the right one at a glance."""
    if value <= 10:
        return value + rng.randint(1, 5)
    return value + rng.choice((-10, -3, -2, -1, 1, 2, 3, 10))


def plain_sum(rng: Random) -> Item:
    """A sum, difference, product or quotient of two numbers."""
    sign = rng.choice("+-x/")
    a, b = rng.randint(11, 89), rng.randint(3, 60)
    if sign == "-":
        a, b = max(a, b), min(a, b)
    elif sign == "x":
        a, b = rng.randint(2, 15), rng.randint(3, 12)
    elif sign == "/":
        b = rng.randint(2, 9)
        a = b * rng.randint(3, 12)
    word = {"+": "plus", "-": "minus", "x": "times", "/": "divided by"}[sign]
    value = {"+": a + b, "-": a - b, "x": a * b, "/": a // b}[sign]
    check = {
        "+": f"{value} minus {b} is {a}",
        "-": f"{value} plus {b} is {a}",
        "x": f"{value} divided by {b} is {a}",
        "/": f"{value} times {b} is {a}",
    }[sign]
    ask = rng.choice(
        (f"What is {a} {word} {b}?", f"Calculate {a} {word} {b}.", f"How much is {a} {word} {b}?")
    )
    return Item(
        "arithmetic",
        ask,
        f"{a} {word} {b} is {value}.",
        f"{a} {word} {b} is {near_miss(rng, value)}.",
        f"{a} {word} {b}",
        short=str(value),
        topic="arithmetic",
        more=f"You can check it: {check}.",
    )


def percentage(rng: Random) -> Item:
    """A percentage that comes out whole."""
    percent = rng.choice((10, 20, 25, 50, 75))
    base = rng.randint(2, 20) * 20
    value = base * percent // 100
    part = {10: "one tenth", 20: "one fifth", 25: "one quarter", 50: "one half", 75: "three quarters"}[
        percent
    ]
    return Item(
        "arithmetic",
        f"What is {percent} percent of {base}?",
        f"{percent} percent of {base} is {value}.",
        f"{percent} percent of {base} is {near_miss(rng, value)}.",
        f"{percent} percent of {base}",
        short=str(value),
        topic="arithmetic",
        more=f"{percent} percent is the same as {part}.",
    )


def word_problem(rng: Random) -> Item:
    """A one-step story problem."""
    name, thing = rng.choice(NAMES), rng.choice(THINGS)
    a, b, c = rng.randint(12, 40), rng.randint(3, 11), rng.randint(2, 9)
    story, value, tail, sum_ = rng.choice(
        (
            (
                f"{name} has {a} {thing} and buys {b} more. How many {thing} does {name} have now?",
                a + b,
                "now has",
                f"{a} plus {b}",
            ),
            (
                f"{name} has {a} {thing} and gives away {b}. How many {thing} are left?",
                a - b,
                "has",
                f"{a} minus {b}",
            ),
            (
                f"{name} fills {c} bags with {b} {thing} each. How many {thing} are there in all?",
                b * c,
                "has",
                f"{c} times {b}",
            ),
            (
                f"{name} shares {b * c} {thing} equally among {c} friends. "
                f"How many {thing} does each friend get?",
                b,
                "",
                f"{b * c} divided by {c}",
            ),
            (
                f"{name} had {a} {thing} and lost {b} of them. How many {thing} does {name} still have?",
                a - b,
                "still has",
                f"{a} minus {b}",
            ),
            (
                f"{name} finds {b} {thing} on Monday and {a} on Tuesday. How many {thing} is that together?",
                a + b,
                "found",
                f"{b} plus {a}",
            ),
        )
    )
    left, right = (f"{name} {tail}", f" {thing}.") if tail else ("Each friend gets", f" {thing}.")
    return Item(
        "story",
        story,
        f"{left} {value}{right}",
        f"{left} {near_miss(rng, value)}{right}",
        f"{name} and the {thing}",
        short=str(value),
        topic="arithmetic",
        more=f"The calculation is {sum_}.",
    )


def unit(rng: Random) -> Item:
    """A change from a larger to a smaller unit."""
    large, small, factor = rng.choice(UNITS)
    n = rng.randint(2, 9)
    value, wrong = n * factor, n * factor * 10 if factor > 60 else n * factor + factor
    ask = rng.choice(
        (
            f"How many {small} are there in {n} {large}?",
            f"Convert {n} {large} to {small}.",
            f"{n} {large}: how many {small} is that?",
        )
    )
    return Item(
        "unit",
        ask,
        f"There are {value} {small} in {n} {large}.",
        f"There are {wrong} {small} in {n} {large}.",
        f"{large} and {small}",
        short=str(value),
        topic="units",
        more=f"One {large[:-1]} is {factor} {small}.",
    )


def sort_numbers(rng: Random) -> Item:
    """A short list of numbers to be put in order."""
    numbers = rng.sample(range(3, 99), rng.choice((4, 5)))
    down = rng.random() < 0.4
    if numbers == sorted(numbers, reverse=down):
        numbers.reverse()
    right = ", ".join(map(str, sorted(numbers, reverse=down)))
    text = ", ".join(map(str, numbers))
    order = "largest to smallest" if down else "smallest to largest"
    return Item(
        "sorting",
        f"Sort these numbers from {order}.",
        f"{right}",
        f"{text}",
        "sorting numbers",
        input=text,
        topic="sorting",
    )


def sort_words(rng: Random) -> Item:
    """A short list of words to be put in alphabetical order."""
    words = rng.sample(WORDS, 4)
    if words == sorted(words):
        words.reverse()
    text = ", ".join(words)
    return Item(
        "sorting",
        "Put these words in alphabetical order.",
        ", ".join(sorted(words)),
        text,
        "the order of words",
        input=text,
        topic="sorting",
    )


def extreme(rng: Random) -> Item:
    """The largest or smallest of four numbers."""
    numbers = rng.sample(range(5, 200), 4)
    word, pick, avoid, end = rng.choice(
        (("largest", max, min, "smallest"), ("smallest", min, max, "largest"))
    )
    text = ", ".join(map(str, numbers))
    return Item(
        "sorting",
        f"Which is the {word} of these numbers: {text}?",
        f"The {word} number is {pick(numbers)}.",
        f"The {word} number is {avoid(numbers)}.",
        f"the {word} number",
        short=str(pick(numbers)),
        topic="numbers",
        more=f"The {end} is {avoid(numbers)}.",
    )


def weekday(rng: Random) -> Item:
    """The day some days before or after a weekday."""
    start, n = rng.randrange(7), rng.randint(2, 6)
    if rng.random() < 0.5:
        when, value, verb, tense, way = (
            f"in {n} days",
            DAYS[(start + n) % 7],
            "will it be",
            "it will be",
            "on",
        )
    else:
        when, value, verb, tense, way = f"{n} days ago", DAYS[(start - n) % 7], "was it", "it was", "back"
    wrong = DAYS[(DAYS.index(value) + rng.choice((1, 2, 5))) % 7]
    return Item(
        "date",
        f"Today is {DAYS[start]}. What day {verb} {when}?",
        f"{upper_first(when)} {tense} {value}.",
        f"{upper_first(when)} {tense} {wrong}.",
        "the days of the week",
        short=value,
        topic="dates",
        more=f"Count {way} {n} days from {DAYS[start]}.",
    )


def month(rng: Random) -> Item:
    """The length of a month, or the month before or after it."""
    i = rng.randrange(12)
    name, length = MONTHS[i]
    before, after = MONTHS[i - 1][0], MONTHS[(i + 1) % 12][0]
    choice = rng.randrange(3)
    if choice == 0:
        good = f"{name} has {length} days" + (", or 29 in a leap year." if length == 28 else ".")
        return Item(
            "date",
            f"How many days does {name} have?",
            good,
            f"{name} has {30 if length == 31 else 31} days.",
            f"the days of {name}",
            short=str(length),
            topic="dates",
            more=f"It is month number {i + 1} of the year.",
        )
    word, value, wrong = ("after", after, before) if choice == 1 else ("before", before, after)
    return Item(
        "date",
        f"Which month comes right {word} {name}?",
        f"{value} comes right {word} {name}.",
        f"{wrong} comes right {word} {name}.",
        f"the month {word} {name}",
        short=value,
        topic="dates",
        more=f"The three in order are {before}, {name}, {after}.",
    )


def duration(rng: Random) -> Item:
    """The time between two clock times."""
    start, minutes = rng.randint(7, 18) * 60 + rng.choice((0, 15, 30)), rng.choice(list(DURATIONS))
    clock = [f"{t // 60}:{t % 60:02d}" for t in (start, start + minutes)]
    thing = rng.choice(("A film", "A lesson", "A train ride", "A meeting", "A concert", "A football match"))
    return Item(
        "date",
        f"{thing} starts at {clock[0]} and ends at {clock[1]}. How many minutes does it last?",
        f"It lasts {minutes} minutes.",
        f"It lasts {minutes + rng.choice((-15, 10, 15))} minutes.",
        "the clock",
        short=str(minutes),
        topic="time",
        more=f"That is {DURATIONS[minutes]}.",
    )


def letters(rng: Random) -> Item:
    """The number of letters, or the first or last letter, of a word."""
    word, choice = rng.choice(WORDS), rng.randrange(3)
    if choice == 0:
        return Item(
            "letters",
            f"How many letters are in the word '{word}'?",
            f"The word '{word}' has {len(word)} letters.",
            f"The word '{word}' has {len(word) + rng.choice((-1, 1, 2))} letters.",
            f"the letters of '{word}'",
            short=str(len(word)),
            topic="letters",
            more=f"They are {', '.join(word)}.",
        )
    which, good, wrong = ("first", word[0], word[1]) if choice == 1 else ("last", word[-1], word[-2])
    return Item(
        "letters",
        f"What is the {which} letter of the word '{word}'?",
        f"The {which} letter is {good}.",
        f"The {which} letter is {wrong}.",
        f"the letters of '{word}'",
        short=good,
        topic="letters",
        more=f"The word is spelled {'-'.join(word)}.",
    )


def series(rng: Random) -> Item:
    """The next number of an even series."""
    start, step = rng.randint(1, 20), rng.randint(2, 10)
    if rng.random() < 0.3:
        *numbers, value = (start * 2**k for k in range(5))
        rule = "Each number is twice the one before."
    else:
        *numbers, value = (start + step * k for k in range(5))
        rule = f"Each number is {step} more than the one before."
    return Item(
        "series",
        f"What number comes next: {', '.join(map(str, numbers))}?",
        f"The next number is {value}.",
        f"The next number is {near_miss(rng, value)}.",
        "that series of numbers",
        short=str(value),
        topic="numbers",
        more=rule,
    )


def parity(rng: Random) -> Item:
    """Whether a number is even or odd."""
    n = rng.randint(11, 199)
    good, wrong = ("even", "odd") if n % 2 == 0 else ("odd", "even")
    return Item(
        "series",
        f"Is {n} even or odd?",
        f"{n} is {with_article(good)} number.",
        f"{n} is {with_article(wrong)} number.",
        f"the number {n}",
        short=good,
        topic="numbers",
        more=f"Divided by two it leaves a remainder of {n % 2}.",
    )


MAKERS: tuple[tuple[Callable[[Random], Item], int], ...] = (
    (plain_sum, 90),
    (percentage, 14),
    (word_problem, 40),
    (unit, 44),
    (sort_numbers, 16),
    (sort_words, 16),
    (extreme, 16),
    (weekday, 20),
    (month, 24),
    (duration, 16),
    (letters, 36),
    (series, 18),
    (parity, 12),
)


def computed_items(rng: Random) -> list[Item]:
    """All worked-out items, each question once."""
    items: list[Item] = []
    for maker, count in MAKERS:
        seen: set[str] = set()
        while len(seen) < count:
            item = maker(rng)
            if item.prompt not in seen:
                seen.add(item.prompt)
                items.append(item)
    return items
