"""A small benchmark in the layouts in which MMLU, C-Eval and CMMLU are published."""

import csv
import io
import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

Row = tuple[str, str, str, str, str, str]  # question, four choices, the letter of the right one
MAPPING = {
    "astronomy": {"name": "astronomy", "category": "STEM"},
    "law": {"name": "the law", "category": "Humanities"},
}
WORDS = ("sun", "moon", "star", "sea", "court", "judge", "tree", "stone", "fire", "ice")


def questions(subject: str, count: int, first: int = 0) -> list[Row]:
    """Questions that differ, with their right answers in turn."""
    rows: list[Row] = []
    for number in range(first, first + count):
        choices = [f"the {WORDS[(number + at) % len(WORDS)]}, seen {number + at} times" for at in range(4)]
        text = f'What of {subject} is "{WORDS[number % len(WORDS)]}", number {number}?'
        rows.append((text, choices[0], choices[1], choices[2], choices[3], "ABCD"[number % 4]))
    return rows


def table(rows: Iterable[Row], head: Sequence[str] = (), numbered: bool = False) -> str:
    """A CSV file."""
    out = io.StringIO()
    writer = csv.writer(out)
    if head:
        writer.writerow(head)
    for number, row in enumerate(rows):
        writer.writerow([number, *row] if numbered else row)
    return out.getvalue()


def mmlu(folder: Path, tables: Mapping[str, Mapping[str, Sequence[Row]]], *, packed: bool = False) -> Path:
    """`folder/mmlu` with tables by split and subject, as CSV files or in a ZIP file; returns `folder`."""
    files = {
        f"data/{split}/{subject}_{split}.csv": table(rows)
        for split, subjects in tables.items()
        for subject, rows in subjects.items()
    }
    return write(folder, "mmlu", files, packed=packed)


def ceval(folder: Path, tables: Mapping[str, Mapping[str, Sequence[Row]]], *, packed: bool = False) -> Path:
    """The same for C-Eval, whose files have a head."""
    head = ("id", "question", "A", "B", "C", "D", "answer")
    files = {
        f"{split}/{subject}_{split}.csv": table(rows, head, numbered=True)
        for split, subjects in tables.items()
        for subject, rows in subjects.items()
    }
    return write(folder, "ceval", files, packed=packed)


def cmmlu(folder: Path, tables: Mapping[str, Mapping[str, Sequence[Row]]], *, packed: bool = False) -> Path:
    """The same for CMMLU, whose files have a head of their own and no split in their names."""
    head = ("", "Question", "A", "B", "C", "D", "Answer")
    files = {
        f"{split}/{subject}.csv": table(rows, head, numbered=True)
        for split, subjects in tables.items()
        for subject, rows in subjects.items()
    }
    return write(folder, "cmmlu", files, packed=packed)


def write(folder: Path, name: str, files: Mapping[str, str], *, packed: bool) -> Path:
    own = folder / name
    own.mkdir(parents=True, exist_ok=True)
    (own / "mapping.json").write_text(json.dumps(MAPPING), encoding="utf8")
    if packed:
        with zipfile.ZipFile(own / f"{name}.zip", "w") as archive:
            for path, text in files.items():
                archive.writestr(path, text)
        return folder
    for path, text in files.items():
        (own / path).parent.mkdir(parents=True, exist_ok=True)
        (own / path).write_text(text, encoding="utf8")
    return folder
