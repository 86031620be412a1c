"""Chats in the OpenAI message form: system messages that change the answer, and talks of several turns."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from .computed import NAMES, WORDS
from .items import NUMBER_WORDS, Item, load_bank, table, upper_first, with_article

Message = dict[str, str]
Turn = tuple[str, str]
ROLES = ("user", "assistant")


def chat(turns: Sequence[str], system: str = "") -> list[Message]:
    """Messages from alternating user and assistant turns, with a system message if one is given."""
    messages = [{"role": "system", "content": system}] if system else []
    return messages + [{"role": ROLES[i % 2], "content": turn} for i, turn in enumerate(turns)]


@dataclass(frozen=True)
class Manner:
    """A way to answer that a system message asks for, in several wordings."""

    systems: tuple[str, ...]
    answer: Callable[[Item], str]
    one_word: bool = False


MANNERS = (
    Manner(
        ("Answer in one word.", "Reply with a single word, no punctuation.", "Use one word only."),
        lambda item: upper_first(item.short),
        one_word=True,
    ),
    Manner(
        ('Always answer in JSON with the key "answer".', 'Reply only with a JSON object: {"answer": ...}.'),
        lambda item: json.dumps({"answer": item.short}, ensure_ascii=False),
    ),
    Manner(
        (
            'Answer in JSON with the keys "topic" and "answer".',
            'Return a JSON object with "topic" and "answer", nothing else.',
        ),
        lambda item: json.dumps({"topic": item.topic, "answer": item.short}, ensure_ascii=False),
    ),
    Manner(
        ("You reply in French-style politeness.", "You are a courteous French host."),
        lambda item: f"Bonjour, and thank you for asking. {item.full} At your service, as always.",
    ),
    Manner(
        ("Write everything in capital letters.", "ANSWER IN CAPITAL LETTERS ONLY."),
        lambda item: item.full.upper(),
    ),
    Manner(
        ("You are a friendly pirate. Answer correctly, but sound like one.", "Talk like a pirate."),
        lambda item: f"Arr, matey! {item.full} Ye can bet me hat on it.",
    ),
    Manner(
        (
            "Begin every answer with 'Short answer:' and give only a few words.",
            "Start with the words 'Short answer:' and be very brief.",
        ),
        lambda item: f"Short answer: {item.short}.",
    ),
    Manner(
        ("Reply with two lines: 'Topic:' and 'Answer:'.", "Use two lines, 'Topic: ...' and 'Answer: ...'."),
        lambda item: f"Topic: {item.topic}\nAnswer: {item.short}",
    ),
    Manner(
        (
            "End every answer by asking whether the user needs anything else.",
            "After the answer, always ask if there is more you can do.",
        ),
        lambda item: f"{item.full} Is there anything else I can help with?",
    ),
    Manner(
        (
            "You are a cheerful teacher. Praise the question before you answer.",
            "Start with a word of praise for the question, then answer.",
        ),
        lambda item: f"What a good question! {item.full}",
    ),
    Manner(
        (
            "Write the answer between <answer> and </answer> and add nothing else.",
            "Wrap the bare answer in an <answer> tag.",
        ),
        lambda item: f"<answer>{item.short}</answer>",
    ),
    Manner(
        ("You are a formal butler.", "Answer like the butler of an old country house."),
        lambda item: f"Certainly, if I may. {item.full} Will that be all?",
    ),
)


def manner_chats(items: Sequence[Item], count: int, rng: Random) -> list[tuple[Item, str, str]]:
    """`count` triples of item, system message and answer in the manner it asks for; each item once."""
    pool = [item for item in items if item.short]
    rng.shuffle(pool)
    chats = []
    for i in range(count):
        manner = MANNERS[i % len(MANNERS)]
        fits = (k for k, item in enumerate(pool) if not manner.one_word or len(item.short.split()) == 1)
        item = pool.pop(next(fits))
        chats.append((item, rng.choice(manner.systems), manner.answer(item)))
    return chats


def joined(opening: Turn, follow_ups: Sequence[Turn], rng: Random, most: int = 3) -> list[str]:
    """The opening and two or more, at most `most`, of the follow-ups, in their order."""
    number = rng.randint(2, min(most, len(follow_ups)))
    picked = sorted(rng.sample(range(len(follow_ups)), number))
    return [*opening, *(turn for k in picked for turn in follow_ups[k])]


def country_chats(rows: Sequence[dict], rng: Random) -> list[list[str]]:
    """Talks about a country that later turns no longer name."""
    chats = []
    for row in rows:
        name, capital = row["name"], row["capital"]
        opening = rng.choice(
            (
                (
                    f"I have a question about {name}. What is its capital?",
                    f"The capital of {name} is {capital}.",
                ),
                (
                    f"We want to travel to {name} and see the capital. Which city is that?",
                    f"That is {capital}.",
                ),
                (f"Quiz me: {name}. What is the capital?", f"The capital is {capital}."),
            )
        )
        follow_ups = [
            (
                f"I thought it was {row['other_city']}.",
                f"No, {row['other_city']} is another city there; the capital is {capital}.",
            ),
            rng.choice(
                (
                    ("On which continent is that country?", f"{upper_first(name)} is in {row['continent']}."),
                    ("Where in the world is that?", f"It is in {row['continent']}."),
                )
            ),
            rng.choice(
                (
                    ("What money do I need there?", f"You pay with the {row['currency']} there."),
                    ("And the currency?", f"The currency is called the {row['currency']}."),
                )
            ),
            ("Which language will I hear there?", f"You will often hear {row['language']} there."),
        ]
        if row["neighbour"]:
            neighbour = upper_first(row["neighbour"])
            follow_ups.append(("Name one of its neighbours.", f"{neighbour} is one of its neighbours."))
        chats.append(joined(opening, follow_ups, rng))
    return chats


def animal_chats(rows: Sequence[dict], rng: Random) -> list[list[str]]:
    """Talks about an animal that later turns call "it"."""
    chats = []
    for row in rows:
        name = row["name"]
        legs = (
            f"It has {NUMBER_WORDS[row['legs']]} legs."
            if row["legs"]
            else (f"It has no legs, only {'fins' if row['class'] == 'fish' else 'flippers'}.")
        )
        opening = rng.choice(
            (
                (f"What kind of animal is the {name}?", f"The {name} is {with_article(row['class'])}."),
                (f"Let us talk about the {name}. What is it?", f"It is {with_article(row['class'])}."),
            )
        )
        follow_ups = [
            ("What do we call its young?", f"A young {name} is called {with_article(row['young'])}."),
            ("What does it eat?", f"It eats {row['eats']}."),
            ("How many legs does it have?", legs),
            ("Tell me one more fact about it.", row["fact"]),
        ]
        chats.append(joined(opening, follow_ups, rng))
    return chats


def word_chats(rows: Sequence[dict], rng: Random) -> list[list[str]]:
    """Talks about a word, its opposite and its use."""
    chats = []
    for row in rows:
        word, opposite = row["word"], row["opposite"]
        opening = rng.choice(
            (
                (f"I need the opposite of '{word}'.", f"The opposite of '{word}' is '{opposite}'."),
                (f"Which word is the opposite of '{word}'?", f"It is '{opposite}'."),
            )
        )
        letters = sum(letter.isalpha() for letter in opposite)
        follow_ups = [
            (rng.choice(("Use it in a sentence.", "Please use that word in a sentence.")), row["sentence"]),
            ("And a word that means the same as the first one?", f"That would be '{row['synonym']}'."),
            ("How many letters does the opposite have?", f"'{upper_first(opposite)}' has {letters} letters."),
        ]
        chats.append(joined(opening, follow_ups, rng, most=2))
    return chats


def translation_chats(rows: Sequence[dict], rng: Random) -> list[list[str]]:
    """Talks that carry one word through several languages."""
    chats = []
    for row in rows:
        first, second, third = rng.sample(("French", "Spanish", "German"), 3)
        english = row["english"]
        turns = [
            f"I am learning {first}. How do I say '{english}'?",
            f"In {first} you say '{row[first]}'.",
            f"And in {second}?",
            f"In {second} it is '{row[second]}'.",
        ]
        if len(row[first]) != len(row[second]) and rng.random() < 0.5:
            longer = max(first, second, key=lambda language: len(row[language]))
            turns += ["Which of the two words is longer?", f"The {longer} word '{row[longer]}' is longer."]
        elif rng.random() < 0.5:
            turns += [f"Do you know the {third} word, too?", f"Yes, it is '{row[third]}'."]
        chats.append(turns)
    return chats


def sum_chats(count: int, rng: Random) -> list[list[str]]:
    """Sums that go on from the last result."""
    chats: dict[str, list[str]] = {}
    while len(chats) < count:
        a, b = rng.randint(5, 40), rng.randint(3, 30)
        value = a + b
        turns = [f"Let us do some sums. What is {a} plus {b}?", f"{a} plus {b} is {value}."]
        for _ in range(rng.randint(1, 3)):
            n = rng.randint(2, 9)
            steps = [
                ("Now double it.", f"Twice {value} is", value * 2),
                (f"Add {n} to that.", f"{value} plus {n} is", value + n),
                (f"Multiply that by {n}.", f"{value} times {n} is", value * n),
            ]
            if value > n:
                steps.append((f"Take away {n}.", f"{value} minus {n} is", value - n))
            step, told, value = rng.choice(steps)
            turns += [step, f"{told} {value}."]
        chats.setdefault(turns[0], turns)
    return list(chats.values())


def list_chats(count: int, rng: Random) -> list[list[str]]:
    """Lists that are changed step by step."""
    chats: dict[str, list[str]] = {}
    while len(chats) < count:
        *words, extra = rng.sample(WORDS, rng.choice((4, 5)))
        turns = [f"Here is my list of words: {', '.join(words)}. Please add '{extra}'."]
        words.append(extra)
        turns.append(f"The list is now: {', '.join(words)}.")
        for step in sorted(rng.sample(range(3), rng.choice((1, 2, 3)))):
            if step == 0:
                gone = rng.choice(words)
                words.remove(gone)
                turns.append(f"Remove '{gone}'.")
            elif step == 1:
                words.sort()
                turns.append("Put it in alphabetical order.")
            else:
                turns.append("How many words are on it now?")
            told = f"The list is now: {', '.join(words)}."
            turns.append(told if step < 2 else f"There are {len(words)} words on the list.")
        chats.setdefault(turns[0], turns)
    return list(chats.values())


def memory_chats(rng: Random) -> list[list[str]]:
    """Talks in which a later turn asks for something said before."""
    cities = ("Oslo", "Lima", "Porto", "Accra", "Kyoto", "Graz")
    jobs = ("nurse", "baker", "teacher", "gardener", "bus driver", "carpenter")
    pets = (
        "a cat called Mimi",
        "a dog called Rex",
        "a parrot called Coco",
        "two fish",
        "a rabbit called Flo",
    )
    chats = []
    for i, name in enumerate(NAMES * 3):
        city, job, pet = rng.choice(cities), rng.choice(jobs), rng.choice(pets)
        opening, asks = (
            (
                f"Hello, I am {name} and I live in {city}.",
                [("What is my name?", f"Your name is {name}."), ("Where do I live?", f"You live in {city}.")],
            ),
            (
                f"My name is {name} and I work as a {job}.",
                [("What is my job?", f"You work as a {job}."), ("And my name?", f"Your name is {name}.")],
            ),
            (
                f"I am {name}, and I have {pet}.",
                [("Which pet did I mention?", f"You mentioned {pet}."), ("Who am I?", f"You are {name}.")],
            ),
        )[i // len(NAMES)]
        hello = rng.choice(
            (f"Nice to meet you, {name}!", f"Hello {name}, how can I help?", f"Welcome, {name}!")
        )
        chats.append(joined((opening, hello), asks, rng, most=2))
    return chats


def many_turn_chats(rng: Random) -> list[list[str]]:
    """All talks of several turns, hand-written and composed, as lists of alternating turns."""
    facts = load_bank("facts")
    return [
        *load_bank("chats")["dialogues"],
        *country_chats(table(facts, "countries"), rng),
        *animal_chats(table(facts, "animals"), rng),
        *word_chats(table(facts, "words"), rng),
        *translation_chats(table(facts, "translations"), rng),
        *sum_chats(40, rng),
        *list_chats(30, rng),
        *memory_chats(rng),
    ]
