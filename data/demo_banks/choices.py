"""Questions with three words to choose from, of which one is of the kind that is asked for."""

from __future__ import annotations

from random import Random

KINDS = {
    "an animal": "cow dog horse rabbit tiger whale eagle snake sheep goat monkey lion duck mouse",
    "a fruit": "apple banana cherry grape lemon mango orange peach pear plum melon kiwi fig lime",
    "a colour": "blue green red yellow purple white black brown pink grey",
    "a tool": "hammer saw drill wrench shovel axe pliers chisel rake ladder",
    "a vehicle": "car bus train truck bicycle boat ship plane tram taxi",
    "a drink": "tea coffee milk water juice beer wine lemonade cocoa cider",
    "an instrument": "piano violin guitar flute drum trumpet harp cello organ banjo",
    "a part of the body": "arm leg nose ear knee foot shoulder elbow finger toe",
    "a piece of furniture": "table chair sofa bed desk shelf bench stool wardrobe cupboard",
    "clothing": "shirt sock coat hat scarf glove jacket skirt belt shoe",
}


def choice_rows(rng: Random, count: int) -> list[dict[str, str]]:
    """Questions with their answer, no two with the same three words."""
    rows: list[dict[str, str]] = []
    seen: set[frozenset[str]] = set()
    kinds = list(KINDS)
    while len(rows) < count:
        kind, *others = rng.sample(kinds, 3)
        right = rng.choice(KINDS[kind].split())
        words = [right, *(rng.choice(KINDS[other].split()) for other in others)]
        if frozenset(words) in seen:
            continue
        seen.add(frozenset(words))
        rng.shuffle(words)
        question = f"Which of these is {kind}: {', '.join(words)}? Answer with one word."
        rows.append({"question": question, "answer": right, "kind": kind})
    return rows
