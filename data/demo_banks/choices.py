"""Questions that are answered by yes or no: whether a thing is of a kind."""

from __future__ import annotations

from random import Random

from .items import with_article

KINDS = {
    "an animal": "cow dog horse rabbit tiger whale eagle snake sheep goat monkey lion duck mouse",
    "a fruit": "apple banana cherry grape lemon mango orange peach pear plum melon kiwi fig lime",
    "a tool": "hammer saw drill wrench shovel axe chisel rake ladder screwdriver",
    "a vehicle": "car bus train truck bicycle boat ship plane tram taxi",
    "a musical instrument": "piano violin guitar flute drum trumpet harp cello banjo clarinet",
    "a part of the body": "arm leg nose ear knee foot shoulder elbow finger toe",
    "a piece of furniture": "table chair sofa bed desk shelf bench stool wardrobe cupboard",
    "something to wear": "shirt sock coat hat scarf glove jacket skirt belt shoe",
}


def choice_rows() -> list[dict[str, str]]:
    """Each thing with its kind, and with another one: as many answers are yes as no."""
    rng = Random("llmf-hydra demo 1 choices")
    rows: list[dict[str, str]] = []
    for kind, things in KINDS.items():
        for thing in things.split():
            other = rng.choice([name for name in KINDS if name != kind])
            for asked, answer in ((kind, "yes"), (other, "no")):
                question = f"Is {with_article(thing)} {asked}? Answer yes or no."
                rows.append({"question": question, "answer": answer})
    rng.shuffle(rows)
    return rows
