"""`data.tokenized_path`: tokenized data in a folder of the user's own, taken only if it was made the same."""

import json
from pathlib import Path
from typing import Any

from datasets import Dataset, load_from_disk

from llmf_hydra.data.cache import store
from llmf_hydra.data.report import DataReport, SourceReport
from llmf_hydra.errors import Problem, Refused

_SETTINGS, _REPORT, _TRAIN, _EVAL, _REJECTED = (
    "settings.json",
    "report.json",
    "train",
    "eval",
    "rejected.jsonl",
)
_ALL = "all"  # the name of an evaluation set that is not parted
Evaluation = Dataset | dict[str, Dataset] | None
Kept = tuple[Dataset, Evaluation, DataReport, tuple[Path, ...]]


def save(path: Path, settings: dict[str, Any], kept: Kept) -> None:
    """Write everything into a new folder, whole or not at all."""
    train, held, report, rejected = kept

    def make(folder: Path) -> None:
        train.save_to_disk(folder / _TRAIN)
        for name, part in _parts(held).items():
            part.save_to_disk(folder / _EVAL / name)
        with (folder / _REJECTED).open("wb") as out:
            for file in rejected:
                out.write(file.read_bytes())
        (folder / _REPORT).write_text(json.dumps(report.to_dict()), encoding="utf-8")
        (folder / _SETTINGS).write_text(json.dumps(settings, indent=2), encoding="utf-8")

    path = path.absolute()
    store.kept(path.parent, path.name, make)


def load(path: Path, settings: dict[str, Any]) -> Kept:
    """What was saved. Raises Refused where it was made with other settings, each named."""
    if not (path / _SETTINGS).is_file():
        what = "exists, and holds no tokenized data of ours"
        raise Refused([Problem("data.tokenized_path", path, what, "take another folder")])
    made_with = json.loads((path / _SETTINGS).read_text(encoding="utf-8"))
    wanted = json.loads(json.dumps(settings))
    problems = [_mismatch(path, name, made_with.get(name), value) for name, value in wanted.items()]
    if any(problems):
        raise Refused([problem for problem in problems if problem])
    names = sorted(p.name for p in (path / _EVAL).iterdir()) if (path / _EVAL).is_dir() else []
    parts = {name: _rows(path / _EVAL / name) for name in names}
    held: Evaluation = parts[_ALL] if names == [_ALL] else parts or None
    report = json.loads((path / _REPORT).read_text(encoding="utf-8"))
    known = [{k: v for k, v in s.items() if k != "mean"} for s in report["sources"]]
    report["sources"] = [SourceReport(**{**source, "found": True}) for source in known]
    rejected = path / _REJECTED
    return _rows(path / _TRAIN), held, DataReport(**report), (rejected,) if rejected.stat().st_size else ()


def _parts(held: Evaluation) -> dict[str, Dataset]:
    if held is None:
        return {}
    return held if isinstance(held, dict) else {_ALL: held}


def _rows(path: Path) -> Dataset:
    rows = load_from_disk(str(path))
    if not isinstance(rows, Dataset):
        raise Refused([Problem("data.tokenized_path", path, "holds several datasets, not one")])
    return rows


def _mismatch(path: Path, name: str, was: Any, wanted: Any) -> Problem | None:
    """What differs. Datasets that are not named now are taken as they were."""
    if was == wanted or (name == "datasets" and not wanted):
        return None
    what = f"was made with {name}={_short(was)}, and the config says {_short(wanted)}"
    return Problem("data.tokenized_path", path, what, "remove the folder, or name another")


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
