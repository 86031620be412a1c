"""Where a benchmark's tables lie: in a folder or a ZIP file, in the layouts in which they are published.

    TASK_DIR/mmlu/[data/]test/SUBJECT_test.csv, …/dev/SUBJECT_dev.csv     MMLU, C-Eval (split val)
    TASK_DIR/cmmlu/test/SUBJECT.csv, …/dev/SUBJECT.csv                    CMMLU
    TASK_DIR/mmlu/mmlu.zip, or TASK_DIR/mmlu.zip                          the same within a ZIP file
    TASK_DIR/mmlu/mapping.json                                            names and categories of the subjects

TASK_DIR may be the benchmark's own folder. Without torch.
"""

import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llmf_hydra.errors import Problem, Refused, did_you_mean
from llmf_hydra.evaluation.categories import MMLU
from llmf_hydra.evaluation.questions import Subject, read_table
from llmf_hydra.evaluation.tasks import EXAMPLES, Task

KEY = "evaluation.task_dir"
MAPPING = "mapping.json"
SPLIT_FOLDERS = ("dev", "val", "test")
_TABLE = re.compile(r"(?:.*/)?(?P<split>dev|val|test)/(?P<subject>[^./][^/]*?)(?:_(?P=split))?\.csv")


@dataclass(frozen=True)
class Tables:
    """A benchmark's CSV files by split and subject: paths below `folder`, or names within the ZIP file `packed`."""

    folder: Path
    packed: Path | None
    files: Mapping[tuple[str, str], str]

    def subjects(self, split: str) -> list[str]:
        """The subjects that have questions in a split, in the order of their names."""
        return sorted(subject for of, subject in self.files if of == split)

    def text(self, split: str, subject: str) -> tuple[str, str]:
        """A table, and what it is called. Raises Refused for a file that isn't text in UTF-8."""
        name = self.files[split, subject]
        place = f"{self.packed or self.folder}/{name}"
        try:
            if self.packed is None:
                return (self.folder / name).read_text(encoding="utf8"), place
            with zipfile.ZipFile(self.packed) as packed:
                return packed.read(name).decode("utf8"), place
        except (OSError, UnicodeDecodeError, zipfile.BadZipFile) as error:
            raise Refused([Problem(KEY, place, f"cannot be read: {error}")]) from error


def find(task_dir: str, benchmark: str) -> Tables | None:
    """The tables of a benchmark; None where there are none in these layouts. Raises Refused for a broken ZIP file."""
    top = Path(task_dir).expanduser()
    own = top / benchmark
    for folder in (own, top):
        found = _below(folder)
        if found:
            return Tables(folder, None, found)
    for packed in (own / f"{benchmark}.zip", top / f"{benchmark}.zip"):
        if packed.is_file():
            return Tables(packed.parent, packed, _within(packed))
    return None


def problem(task_dir: str, task: Task) -> Problem | None:
    """Why the questions of a task can't be read from a folder's tables, by the names of its files; None if they can."""
    top = Path(task_dir).expanduser()
    if not top.is_dir():
        remedy = "name the folder that holds mmlu/, ceval/ or cmmlu/, or a dataset on the hub as owner/name"
        return Problem(KEY, task_dir, "there is no such folder", remedy)
    try:
        tables = find(task_dir, task.benchmark)
    except Refused as refused:
        return next(one for one in refused.problems if isinstance(one, Problem))
    if tables is None:
        there = [entry.name for entry in top.iterdir()]
        what = f"holds no tables of {task.benchmark} ({task.benchmark}/{task.split}/SUBJECT_{task.split}.csv)"
        return Problem(KEY, task_dir, what, did_you_mean(task.benchmark, there))
    if not tables.subjects(task.split):
        has = ", ".join(sorted({split for split, _ in tables.files}))
        what = f"{tables.packed or tables.folder} holds no split {task.split} (has {has})"
        return Problem(KEY, task_dir, what)
    return None


def read(task_dir: str, task: Task, *, examples: bool) -> list[Subject]:
    """The subjects of a task with their questions, and their examples if asked for. Raises Refused."""
    wrong = problem(task_dir, task)
    tables = None if wrong is not None else find(task_dir, task.benchmark)
    if tables is None:
        raise Refused([wrong or task_dir])
    known = _mapping(tables.folder)
    subjects = tables.subjects(task.split)
    if known is not None:  # the mapping says which subjects there are, and in which order
        missing = [subject for subject in known if subject not in subjects]
        if missing:
            what = f"{MAPPING} names {missing[0]}, which has no table of the split {task.split}"
            raise Refused([Problem(KEY, task_dir, what)])
        subjects = [*known, *(subject for subject in subjects if subject not in known)]
    return [_subject(tables, task, subject, known or {}, examples) for subject in subjects]


def _subject(
    tables: Tables, task: Task, subject: str, known: Mapping[str, Mapping[str, str]], examples: bool
) -> Subject:
    said = known.get(subject, {})
    category = said.get("category") or (MMLU.get(subject) if task.benchmark == "mmlu" else None)
    has_examples = examples and (EXAMPLES, subject) in tables.files
    return Subject(
        subject,
        said.get("name") or subject.replace("_", " "),
        category,
        read_table(*tables.text(task.split, subject)),
        read_table(*tables.text(EXAMPLES, subject)) if has_examples else (),
    )


def _mapping(folder: Path) -> dict[str, dict[str, str]] | None:
    file = folder / MAPPING
    if not file.is_file():
        return None
    try:
        known = json.loads(file.read_text(encoding="utf8"))
        return {
            str(key): {"name": str(said["name"]), "category": str(said["category"])}
            for key, said in known.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"{file} is no mapping of subjects to a name and a category: {type(error).__name__}: {error}"
        raise Refused([Problem(KEY, folder, what)]) from error


def _below(folder: Path) -> dict[tuple[str, str], str]:
    """The tables in a folder's splits: right below it, or below its `data/`."""
    names: list[str] = []
    for inner in ("", "data/"):
        for split in SPLIT_FOLDERS:
            names += [f"{inner}{split}/{file.name}" for file in (folder / inner / split).glob("*.csv")]
    return _by_split(names)


def _within(packed: Path) -> dict[tuple[str, str], str]:
    try:
        with zipfile.ZipFile(packed) as opened:
            names = [name for name in opened.namelist() if "__MACOSX" not in name]
    except (OSError, zipfile.BadZipFile) as error:
        raise Refused([Problem(KEY, packed, f"cannot be read: {error}")]) from error
    return _by_split(names)


def _by_split(names: Sequence[str]) -> dict[tuple[str, str], str]:
    found = ((name, _TABLE.fullmatch(name)) for name in names)
    return {(match["split"], match["subject"]): name for name, match in found if match is not None}
