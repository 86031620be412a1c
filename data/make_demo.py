"""Write the demo data sets from the banks in `demo_banks/`.

The result depends on nothing but these files: the seed is fixed, and neither network nor packages are used.

    python data/make_demo.py [--out FOLDER]
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random

from demo_banks.bad import STYLES, Spoiler
from demo_banks.chats import chat, manner_chats, many_turn_chats
from demo_banks.choices import choice_rows
from demo_banks.computed import computed_items
from demo_banks.items import Item, bank_items, load_bank

SEED = "llmf-hydra demo 1"
# How many items of each kind the preference pairs take; kinds with fewer items give all they have.
PREFERENCE_QUOTA = {
    "science": 56,
    "world": 40,
    "advice": 42,
    "safety": 25,
    "format": 50,
    "rewrite": 41,
    "politeness": 27,
    "summary": 27,
    "capital": 40,
    "country": 30,
    "animal": 36,
    "opposite": 22,
    "synonym": 16,
    "translation": 24,
    "spelling": 22,
    "element": 10,
    "arithmetic": 40,
    "story": 20,
    "unit": 18,
    "sorting": 22,
    "date": 22,
    "letters": 10,
    "series": 8,
}
WRONG_SHARE = 0.25  # of the pairs of a kind, those whose rejected answer is plainly wrong
# Where the hand-written second answer is itself of a visibly bad kind (rude, or not in the form asked for).
OWN_BAD_SHARE = {"format": 0.7, "politeness": 0.45}
FULL_SHARE = 0.8  # of the good answers, those that get their second sentence
INSTRUCT_SINGLES = 440
INSTRUCT_MANNERS = 192
INSTRUCT_PARAGRAPHS = 64  # few: what they say can't be learned from the others, and they are long
PARAGRAPH_ASKS = (
    "Write a short paragraph about {}.",
    "Tell me something about {}.",
    "Give me a short text on {}.",
    "What can you tell me about {}? A few sentences will do.",
)
FEEDBACK_BOTH, FEEDBACK_ONE = 150, 76  # prompts with two answers, and prompts with one, of each label


def pick(items: Sequence[Item], quota: dict[str, int], rng: Random) -> list[Item]:
    """Up to `quota[kind]` items of each kind, shuffled."""
    shuffled = rng.sample(items, len(items))
    left = Counter(quota)
    picked = []
    for item in shuffled:
        if left[item.kind] > 0:
            left[item.kind] -= 1
            picked.append(item)
    return picked


def answer_pairs(items: Sequence[Item], rng: Random) -> list[tuple[str, str]]:
    """A good and a bad answer for each item: for a share of each kind a wrong one, else a bad style."""
    spoiler = Spoiler(rng)
    kinds, styles = Counter(item.kind for item in items), 0
    wrong_left = {kind: round(n * OWN_BAD_SHARE.get(kind, WRONG_SHARE)) for kind, n in kinds.items()}
    pairs = []
    for item in items:
        good = item.full if rng.random() < FULL_SHARE else item.good
        kinds[item.kind] -= 1
        # Wrong answers are drawn so that exactly the wanted number of each kind comes out.
        if rng.random() * (kinds[item.kind] + 1) < wrong_left[item.kind]:
            wrong_left[item.kind] -= 1
            pairs.append((good, item.wrong))
        else:
            pairs.append((good, spoiler.spoil(item, STYLES[styles % len(STYLES)], len(good.split()))))
            styles += 1
    return pairs


def preference_rows(items: Sequence[Item]) -> list[dict]:
    """Pairs of a good and a bad answer."""
    rng = Random(f"{SEED} preference")
    picked = pick(items, PREFERENCE_QUOTA, rng)
    return [
        {"instruction": item.ask, "input": item.input, "chosen": good, "rejected": bad}
        for item, (good, bad) in zip(picked, answer_pairs(picked, rng), strict=True)
    ]


def instruct_rows(items: Sequence[Item]) -> list[dict]:
    """Single questions, short paragraphs, chats with a system message and chats of several turns.

    No opening question comes twice.
    """
    rng = Random(f"{SEED} instruct")
    chats = [chat(turns) for turns in many_turn_chats(rng)]
    chats += [chat(turns, system) for system, *turns in load_bank("chats")["system_rows"]]
    taken = {opening(messages) for messages in chats}
    free = [item for item in items if item.prompt not in taken]
    # Questions written out by hand go in without a system message; the others feed both kinds.
    by_hand = [item for item in free if item.kind in load_bank("questions")]
    rest = [item for item in free if item.kind not in load_bank("questions")]
    manners = manner_chats(rest, INSTRUCT_MANNERS, rng)
    used = {item.prompt for item, _, _ in manners}
    rest = [item for item in rest if item.prompt not in used]
    singles = by_hand + rng.sample(rest, INSTRUCT_SINGLES - len(by_hand))
    chats += [chat([item.prompt, answer], system) for item, system, answer in manners]
    chats += [chat([item.prompt, item.full]) for item in singles]
    passages = [passage for titled in load_bank("passages").values() for passage in titled]
    chats += [
        chat([rng.choice(PARAGRAPH_ASKS).format(title), text])
        for title, text in rng.sample(passages, INSTRUCT_PARAGRAPHS)
    ]
    rng.shuffle(chats)
    return [{"messages": messages} for messages in chats]


def opening(messages: Sequence[dict]) -> str:
    """The first user turn of a chat."""
    return next(message["content"] for message in messages if message["role"] == "user")


def feedback_rows(items: Sequence[Item]) -> list[dict]:
    """Single answers marked good or bad; some with a system message that the bad answer ignores."""
    rng = Random(f"{SEED} feedback")
    manners = manner_chats(items, 24, rng)
    used = {item.prompt for item, _, _ in manners}
    quota = {kind: round(n * 0.6) for kind, n in PREFERENCE_QUOTA.items()}
    picked = pick([item for item in items if item.prompt not in used], quota, rng)
    picked = picked[: FEEDBACK_BOTH + 2 * FEEDBACK_ONE]
    rows = []
    for i, (item, (good, bad)) in enumerate(zip(picked, answer_pairs(picked, rng), strict=True)):
        if i < FEEDBACK_BOTH + FEEDBACK_ONE:
            rows.append({"messages": chat([item.prompt, good]), "label": True})
        if not FEEDBACK_BOTH <= i < FEEDBACK_BOTH + FEEDBACK_ONE:
            rows.append({"messages": chat([item.prompt, bad]), "label": False})
    for item, system, answer in manners:
        rows.append({"messages": chat([item.prompt, answer], system), "label": True})
        rows.append({"messages": chat([item.prompt, item.good], system), "label": False})
    rng.shuffle(rows)
    return rows


def text_rows() -> list[dict]:
    """Short passages of plain prose."""
    passages = [text for titled in load_bank("passages").values() for _, text in titled]
    Random(f"{SEED} text").shuffle(passages)
    return [{"text": text} for text in passages]


def write_jsonl(path: Path, rows: Iterable[dict]) -> None:
    """Write one JSON object a line, in UTF-8 with bare line feeds."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_bytes(text.encode("utf-8"))


def main() -> None:
    """Write all sets and print their counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).resolve().parent, help="folder to write to"
    )
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    items = [*bank_items(), *computed_items(Random(f"{SEED} computed"))]
    sets = {
        "demo_preference": preference_rows(items),
        "demo_instruct": instruct_rows(items),
        "demo_text": text_rows(),
        "demo_feedback": feedback_rows(items),
        "demo_grpo": choice_rows(),
    }
    for name, rows in sets.items():
        write_jsonl(out / f"{name}.jsonl", rows)
        print(f"{name}: {len(rows)} rows")


if __name__ == "__main__":
    main()
