"""`data.tokenized_path`: tokenized data in a folder of the user's own, taken only if it was made the same."""

import json
from collections.abc import Mapping
from pathlib import Path

from datasets import Dataset, load_from_disk

from llmf_hydra.data.cache import store, tokenized_folder
from llmf_hydra.data.report import DataReport, SourceReport
from llmf_hydra.errors import Problem, Refused

_REPORT, _REJECTED = "report.json", "rejected.jsonl"
_TRAIN, _EVAL, _EVAL_NAMES = "train", "eval", "eval_names.json"
Evaluation = Dataset | dict[str, Dataset] | None
Saved = tuple[Dataset, Evaluation, DataReport, tuple[Path, ...]]


def save(path: Path, settings: Mapping[str, object], prepared: Saved) -> None:
    """Write everything into the folder `path`, whole or not at all, and nothing outside of it."""
    train, held, report, rejected = prepared

    def make(folder: Path) -> None:
        train.save_to_disk(folder / _TRAIN)
        _save_evaluation(held, folder)
        with (folder / _REJECTED).open("wb") as out:
            for file in rejected:
                out.write(file.read_bytes())
        (folder / _REPORT).write_text(json.dumps(report.to_dict()), encoding="utf-8")
        (folder / tokenized_folder.SETTINGS).write_text(json.dumps(settings, indent=2), encoding="utf-8")

    store.obtain(path.absolute(), tokenized_folder.DATA, make)


def load(path: Path, settings: Mapping[str, object]) -> Saved:
    """What was saved. Raises Refused where it was made with other settings, each named."""
    foreign = tokenized_folder.problem(path)
    if foreign is not None:
        raise Refused([foreign])
    folder = tokenized_folder.content(path)
    made_with = json.loads((folder / tokenized_folder.SETTINGS).read_text(encoding="utf-8"))
    wanted = json.loads(json.dumps(settings))
    problems = [_mismatch(path, name, made_with.get(name), value) for name, value in wanted.items()]
    if any(problems):
        raise Refused([problem for problem in problems if problem])
    report = json.loads((folder / _REPORT).read_text(encoding="utf-8"))
    known = [{k: v for k, v in s.items() if k != "mean"} for s in report["sources"]]
    report["sources"] = [SourceReport(**{**source, "found": True}) for source in known]
    rejected = folder / _REJECTED
    bad_rows = (rejected,) if rejected.stat().st_size else ()
    return _rows(folder / _TRAIN), _load_evaluation(folder), DataReport(**report), bad_rows


def _save_evaluation(held: Evaluation, folder: Path) -> None:
    """By index: a dataset's name may be a path. Their names stand in a file; null where the rows aren't parted."""
    parts: dict[str | None, Dataset] = (
        {} if held is None else {None: held} if isinstance(held, Dataset) else {**held}
    )
    for index, part in enumerate(parts.values()):
        part.save_to_disk(folder / _EVAL / f"{index:05d}")
    (folder / _EVAL_NAMES).write_text(json.dumps(list(parts)), encoding="utf-8")


def _load_evaluation(folder: Path) -> Evaluation:
    names: list[str | None] = json.loads((folder / _EVAL_NAMES).read_text(encoding="utf-8"))
    parts = [_rows(folder / _EVAL / f"{index:05d}") for index in range(len(names))]
    if not names:
        return None
    return parts[0] if names == [None] else {str(name): part for name, part in zip(names, parts, strict=True)}


def _rows(path: Path) -> Dataset:
    rows = load_from_disk(str(path))
    if not isinstance(rows, Dataset):
        raise Refused([Problem(tokenized_folder.KEY, path, "holds several datasets, not one")])
    return rows


def _mismatch(path: Path, name: str, was: object, wanted: object) -> Problem | None:
    """What differs. Datasets that are not named now are taken as they were."""
    if was == wanted or (name == "datasets" and not wanted):
        return None
    what = f"was made with {name}={_short(was)}, and the config says {_short(wanted)}"
    return Problem(tokenized_folder.KEY, path, what, "remove the folder, or name another")


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
