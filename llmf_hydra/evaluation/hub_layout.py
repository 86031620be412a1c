"""Benchmarks as repositories of the datasets library: a name on the hub, or a folder, with a configuration a subject.

Such are cais/mmlu and ceval/ceval-exam. `evaluation.download_mode` says what the library keeps of an earlier run.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llmf_hydra.errors import Problem, Refused
from llmf_hydra.evaluation.categories import MMLU
from llmf_hydra.evaluation.layouts import KEY
from llmf_hydra.evaluation.questions import LETTERS, Question, Subject, question_of
from llmf_hydra.evaluation.tasks import EXAMPLES, Task

NAMES = {
    "test": ("test",),
    "val": ("validation", "val"),
    EXAMPLES: ("dev", "train"),
}  # of splits in such repositories
ALL = ("all", "default")  # configurations that hold every subject, which a column names


def read(
    name: str, task: Task, *, examples: bool, download_mode: str, cache_dir: str | None, token: str | None
) -> list[Subject]:
    """The subjects of a task with their questions, and their examples if asked for. Raises Refused."""
    from datasets import get_dataset_config_names, load_dataset

    given: dict[str, Any] = {"cache_dir": cache_dir, "token": token, "download_mode": download_mode}
    try:
        configurations = get_dataset_config_names(name, download_mode=download_mode, token=token)
        subjects = [one for one in configurations if one not in ALL]
        loaded = {one: load_dataset(name, one, **given) for one in subjects or configurations}
    except Exception as error:  # the library raises anything from OSError to its own classes
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        what = f"could not be loaded by the datasets library: {reason}"
        raise Refused([Problem(KEY, name, what, "is the network there, and the name right?")]) from error
    found: list[Subject] = []
    for configuration, splits in loaded.items():
        found += _subjects(configuration, splits, task, f"{name} {configuration}", examples)
    if not found:
        what = f"has no questions in a split {' or '.join(NAMES[task.split])}"
        raise Refused([Problem(KEY, name, what)])
    return found


def is_repository(folder: Path) -> bool:
    """Whether a folder holds files that the datasets library reads by their configurations."""
    return any(folder.rglob("*.parquet")) or any(folder.rglob("*.jsonl"))


def _subjects(
    configuration: str, splits: Mapping[str, Any], task: Task, place: str, examples: bool
) -> Iterator[Subject]:
    asked = _by_subject(_split(splits, task.split), configuration, place)
    shown = _by_subject(_split(splits, EXAMPLES), configuration, place) if examples else {}
    for key, questions in asked.items():
        category = MMLU.get(key) if task.benchmark == "mmlu" else None
        yield Subject(key, key.replace("_", " "), category, tuple(questions), tuple(shown.get(key, ())))


def _split(splits: Mapping[str, Any], wanted: str) -> Any:
    return next((splits[name] for name in NAMES[wanted] if name in splits), ())


def _by_subject(rows: Any, configuration: str, place: str) -> dict[str, list[Question]]:
    found: dict[str, list[Question]] = {}
    for number, row in enumerate(rows, 1):
        subject = str(row.get("subject") or configuration) if configuration in ALL else configuration
        choices = row.get("choices") or [row[letter] for letter in LETTERS if letter in row]
        question = question_of(row.get("question", ""), choices, row.get("answer"), f"{place} row {number}")
        found.setdefault(subject, []).append(question)
    return found
