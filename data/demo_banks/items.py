"""Question-and-answer items from the hand-written banks (`questions.json`, `facts.json`)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

BANKS = Path(__file__).resolve().parent
NUMBER_WORDS = {2: "two", 4: "four", 6: "six", 8: "eight"}
Row = dict[str, str]


@dataclass(frozen=True)
class Item:
    """One question with its right answer and a plainly wrong one.

    `more` is a true sentence that may follow the good answer; `about` names the subject as a noun phrase;
    `short` is the answer in a few words, where one exists; `topic` is the field the question belongs to.
    """

    kind: str
    ask: str
    good: str
    wrong: str
    about: str
    input: str = ""
    short: str = ""
    topic: str = ""
    more: str = ""

    @property
    def prompt(self) -> str:
        """The question with its input, as a chat user would send it."""
        return f"{self.ask}\n{self.input}" if self.input else self.ask

    @property
    def full(self) -> str:
        """The good answer with the sentence that may follow it."""
        return f"{self.good} {self.more}" if self.more else self.good


def load_bank(name: str) -> dict:
    """The parsed JSON bank `name` (without the ending)."""
    return json.loads((BANKS / f"{name}.json").read_text(encoding="utf-8"))


def table(bank: dict, name: str) -> list[dict]:
    """The rows of one table of a bank, as dicts keyed by column."""
    columns = bank[name]["columns"]
    return [dict(zip(columns, row, strict=True)) for row in bank[name]["rows"]]


def upper_first(text: str) -> str:
    """`text` with its first letter in upper case and the rest unchanged."""
    return text[:1].upper() + text[1:]


def with_article(noun: str) -> str:
    """`noun` with "a" or "an"."""
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"


def other(values: Sequence[str], index: int, step: int) -> str:
    """A value that differs from `values[index]`, found by walking on in steps of `step`."""
    at = index
    for _ in values:
        at = (at + step) % len(values)
        if values[at] != values[index]:
            return values[at]
    raise ValueError("all values are alike")


def question_items() -> list[Item]:
    """The items written out in full in `questions.json`."""
    bank = load_bank("questions")
    return [Item(kind=kind, topic=kind, **row) for kind in bank for row in table(bank, kind)]


def country_items(rows: Sequence[Row]) -> list[Item]:
    """Capital, continent, currency, language and neighbour of each country."""
    columns = {key: [row[key] for row in rows] for key in rows[0]}
    return [
        item
        for i, row in enumerate(rows)
        for item in (
            *_capitals(i, row, columns),
            *_place_or_language(i, row, columns),
            *_money_or_border(i, row, columns),
        )
    ]


def _capitals(i: int, row: Row, columns: dict[str, list[str]]) -> Iterator[Item]:
    asks = (
        "What is the capital of {}?",
        "Which city is the capital of {}?",
        "Name the capital of {}.",
        "Can you tell me the capital city of {}?",
    )
    name, capital = row["name"], row["capital"]
    yield Item(
        "capital",
        asks[i % 4].format(name),
        f"The capital of {name} is {capital}.",
        f"The capital of {name} is {row['other_city']}.",
        f"the capital of {name}",
        short=capital,
        topic="capitals",
        more=f"People there pay with the {row['currency']}.",
    )
    yield Item(
        "capital",
        f"Of which country is {capital} the capital?",
        f"{capital} is the capital of {name}.",
        f"{capital} is the capital of {other(columns['name'], i, 7)}.",
        f"the city of {capital}",
        short=name,
        topic="capitals",
        more=f"The country is in {row['continent']}.",
    )


def _place_or_language(i: int, row: Row, columns: dict[str, list[str]]) -> Iterator[Item]:
    name, capital = row["name"], row["capital"]
    cap = upper_first(name)
    if i % 2:
        yield Item(
            "country",
            f"On which continent is {name}?",
            f"{cap} is in {row['continent']}.",
            f"{cap} is in {other(columns['continent'], i, 11)}.",
            f"the place of {name} on the map",
            short=row["continent"],
            topic="geography",
            more=f"Its capital is {capital}.",
        )
    else:
        yield Item(
            "country",
            f"Name a widely spoken language of {name}.",
            f"{row['language']} is widely spoken in {name}.",
            f"The most widely spoken language in {name} is {other(columns['language'], i, 13)}.",
            f"the language of {name}",
            short=row["language"],
            topic="languages",
            more=f"You will hear it in {capital}, the capital.",
        )


def _money_or_border(i: int, row: Row, columns: dict[str, list[str]]) -> Iterator[Item]:
    name, capital = row["name"], row["capital"]
    if i % 3:
        yield Item(
            "country",
            f"What is the currency of {name} called?",
            f"The currency of {name} is called the {row['currency']}.",
            f"The currency of {name} is called the {other(columns['currency'], i, 5)}.",
            f"the money of {name}",
            short=row["currency"],
            topic="money",
            more=f"You can change money in {capital}, the capital.",
        )
    elif row["neighbour"]:
        yield Item(
            "country",
            f"Name one country that borders {name}.",
            f"{upper_first(row['neighbour'])} borders {name}.",
            f"{'Iceland' if row['continent'] != 'Europe' else 'Japan'} borders {name}.",
            f"the neighbours of {name}",
            short=row["neighbour"],
            topic="geography",
            more=f"Both are in {row['continent']}.",
        )


def animal_items(rows: Sequence[dict]) -> list[Item]:
    """Young, class, food and legs of each animal."""
    odd_food = ("old newspapers", "pebbles and sand", "iron nails", "candle wax", "plastic bags")
    young = [row["young"] for row in rows]
    classes = [row["class"] for row in rows]
    items = []
    for i, row in enumerate(rows):
        name = row["name"]
        one = with_article(name)
        cap = upper_first(one)
        items.append(
            Item(
                "animal",
                f"What is a young {name} called?",
                f"A young {name} is called {with_article(row['young'])}.",
                f"A young {name} is called {with_article(other(young, i, 9))}.",
                f"young {name}s".replace("sheeps", "sheep"),
                short=row["young"],
                topic="animals",
                more=row["fact"],
            )
        )
        wrong_class = other(classes, i, 10)
        first, second = sorted((row["class"], wrong_class))
        items.append(
            Item(
                "animal",
                f"Is {one} {with_article(first)} or {with_article(second)}?",
                f"{cap} is {with_article(row['class'])}.",
                f"{cap} is {with_article(wrong_class)}.",
                f"the nature of {one}",
                short=row["class"],
                topic="animals",
                more=f"It eats {row['eats']}.",
            )
        )
        items.append(
            Item(
                "animal",
                f"What does {one} eat?",
                f"{cap} eats {row['eats']}.",
                f"{cap} eats {odd_food[i % len(odd_food)]}.",
                f"the food of {one}",
                short=row["eats"],
                topic="animals",
                more=row["fact"],
            )
        )
        if row["legs"]:
            legs = NUMBER_WORDS[row["legs"]]
            items.append(
                Item(
                    "animal",
                    f"How many legs does {one} have?",
                    f"{cap} has {legs} legs.",
                    f"{cap} has {'ten' if i % 2 else 'three'} legs.",
                    f"the legs of {one}",
                    short=legs,
                    topic="animals",
                    more=f"It belongs to the {row['class']}s.".replace("fishs", "fish"),
                )
            )
    return items


def word_items(rows: Sequence[Row]) -> list[Item]:
    """The opposite and a synonym of each word."""
    asks = (
        "What is the opposite of '{}'?",
        "Give a word that means the opposite of '{}'.",
        "Name the antonym of '{}'.",
    )
    same = (
        "Give a synonym of '{}'.",
        "Which word means about the same as '{}'?",
        "Name another word for '{}'.",
    )
    items = []
    for i, row in enumerate(rows):
        word, opposite, synonym = row["word"], row["opposite"], row["synonym"]
        items.append(
            Item(
                "opposite",
                asks[i % 3].format(word),
                f"The opposite of '{word}' is '{opposite}'.",
                f"The opposite of '{word}' is '{synonym}'.",
                f"the opposite of '{word}'",
                short=opposite,
                topic="words",
                more=f"For example: {row['sentence']}",
            )
        )
        items.append(
            Item(
                "synonym",
                same[i % 3].format(word),
                f"A synonym of '{word}' is '{synonym}'.",
                f"A synonym of '{word}' is '{opposite}'.",
                f"the word '{word}'",
                short=synonym,
                topic="words",
                more=f"The opposite of both is '{opposite}'.",
            )
        )
    return items


def translation_items(rows: Sequence[Row]) -> list[Item]:
    """Two of the three translations of each word."""
    languages = ("French", "Spanish", "German")
    asks = ("What is the {1} word for '{0}'?", "Translate '{0}' into {1}.", "How do you say '{0}' in {1}?")
    items = []
    for i, row in enumerate(rows):
        for k in range(2):
            language = languages[(i + k) % 3]
            english, word = row["english"], row[language]
            wrong = other([r[language] for r in rows], i, 3 + k)
            items.append(
                Item(
                    "translation",
                    asks[(i + k) % 3].format(english, language),
                    f"The {language} for '{english}' is '{word}'.",
                    f"The {language} for '{english}' is '{wrong}'.",
                    f"the {language} for '{english}'",
                    short=word,
                    topic=language,
                    more=f"In {languages[(i + k + 1) % 3]} it is '{row[languages[(i + k + 1) % 3]]}'.",
                )
            )
    return items


def spelling_items(rows: Sequence[Row]) -> list[Item]:
    """Each word twice: as a choice of two spellings and as a correction."""
    items = []
    for i, row in enumerate(rows):
        right, wrong = row["right"], row["wrong"]
        first, second = (right, wrong) if i % 2 else (wrong, right)
        items.append(
            Item(
                "spelling",
                f"Which spelling is correct, '{first}' or '{second}'?",
                f"The correct spelling is '{right}'.",
                f"The correct spelling is '{wrong}'.",
                "spelling",
                short=right,
                topic="spelling",
                more=f"The form '{wrong}' is a common mistake.",
            )
        )
        items.append(
            Item(
                "spelling",
                "Correct the spelling of this word.",
                f"It is spelled '{right}'.",
                f"It is spelled '{wrong}', as it stands.",
                f"the word '{wrong}'",
                input=wrong,
                short=right,
                topic="spelling",
                more=f"The word has {len(right)} letters.",
            )
        )
    return items


def element_items(rows: Sequence[Row]) -> list[Item]:
    """The chemical symbol of each element, asked both ways."""
    names = [row["name"] for row in rows]
    items = []
    for i, row in enumerate(rows):
        name, symbol = row["name"], row["symbol"]
        items.append(
            Item(
                "element",
                f"What is the chemical symbol for {name}?",
                f"The chemical symbol for {name} is {symbol}.",
                f"The chemical symbol for {name} is {row['wrong_symbol']}.",
                f"the symbol for {name}",
                short=symbol,
                topic="chemistry",
                more=f"It is used for {row['use']}.",
            )
        )
        items.append(
            Item(
                "element",
                f"Which element has the chemical symbol {symbol}?",
                f"{symbol} is the symbol for {name}.",
                f"{symbol} is the symbol for {other(names, i, 4)}.",
                f"the symbol {symbol}",
                short=name,
                topic="chemistry",
                more=f"This element is used for {row['use']}.",
            )
        )
    return items


def bank_items() -> list[Item]:
    """All items that come from the hand-written banks."""
    facts = load_bank("facts")
    return [
        *question_items(),
        *country_items(table(facts, "countries")),
        *animal_items(table(facts, "animals")),
        *word_items(table(facts, "words")),
        *translation_items(table(facts, "translations")),
        *spelling_items(table(facts, "spelling")),
        *element_items(table(facts, "elements")),
    ]
