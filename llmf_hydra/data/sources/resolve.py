"""Which datasets a config names, and whether they are there and fit. Standard library only: asked before
torch.

A name is a row of dataset_info.json, a file or folder, or a dataset on the hub.
"""

import itertools
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from llmf_hydra import paths
from llmf_hydra.config.groups.data import DataConfig
from llmf_hydra.data.kinds import MEANING
from llmf_hydra.data.rows import BadRow
from llmf_hydra.data.sources import files, reader
from llmf_hydra.data.sources.dataset_info import ENDINGS, Source, described, hubs_in_order
from llmf_hydra.errors import NO_VALUE, Problem, Refused, did_you_mean

INFO = "dataset_info.json"
MOST_ENTRIES = 100_000  # files of a folder that is looked through
SHOWN = 10  # bad rows that are listed


def shipped_data_dir() -> Path:
    """The demo data that come with the package."""
    return paths.data_dir()


def resolve(data: DataConfig, names: str, field: str) -> list[Source]:
    """The sources that `names` ("a,b") stand for; `field` is dataset or eval_dataset. Raises Refused."""
    found = list(resolved(data, names, f"data.{field}"))
    problems = [problem for _, problems in found for problem in problems]
    if problems:
        raise Refused(problems)
    return [source for source, _ in found]


def check_sources(data: DataConfig, kind: str) -> list[Problem]:
    """Everything that is wrong with the names and the first rows of the datasets; quick."""
    problems: list[Problem] = []
    for field, names in (("dataset", data.dataset), ("eval_dataset", data.eval_dataset)):
        for source, found in resolved(data, names, f"data.{field}") if names else ():
            problems += found or _check_rows(source, kind, f"data.{field}", data.skip_bad_rows)
    return problems


def table_of(data: DataConfig) -> tuple[dict[str, object], Path]:
    """The table of datasets and the folder its file names are relative to. Raises Refused."""
    if isinstance(data.dataset_dir, Mapping):
        return dict(data.dataset_dir), Path.cwd()
    folder = Path(str(data.dataset_dir)).expanduser()
    if not (folder / INFO).is_file() and str(data.dataset_dir) == "data":
        folder = shipped_data_dir()
    info = folder / INFO
    if not info.is_file():
        return {}, folder
    try:
        table = json.loads(info.read_text(encoding="utf-8"), object_pairs_hook=_without_repeats)
    except _Repeated as error:
        what = f"{info} has {error} twice, and only one would count"
        raise Refused([Problem("data.dataset_dir", data.dataset_dir, what, "rename or remove one")]) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise Refused(
            [Problem("data.dataset_dir", data.dataset_dir, f"{info} is not valid JSON: {error}")]
        ) from None
    if not isinstance(table, dict):
        raise Refused([Problem("data.dataset_dir", data.dataset_dir, f"{info} is not a mapping of names")])
    return table, folder


class _Repeated(Exception):
    """A name that stands twice in one mapping of dataset_info.json."""


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made: dict[str, object] = {}
    for name, value in pairs:
        if name in made:
            raise _Repeated(name)
        made[name] = value
    return made


def resolved(data: DataConfig, names: str, key: str) -> Iterator[tuple[Source, list[Problem]]]:
    """Each source that `names` stands for, with what is wrong with it."""
    try:
        table, folder = table_of(data)
    except Refused as refused:
        yield Source(""), [problem for problem in refused.problems if isinstance(problem, Problem)]
        return
    media_dir = Path(data.media_dir).expanduser() if data.media_dir else folder
    for name in (part.strip() for part in names.split(",")):
        if not name:
            yield Source(""), [Problem(key, names, "has an empty name", "separate names by single commas")]
            continue
        try:
            source, problems = _one(name, table, folder, key, data)
        except OSError as error:  # such as a name that no file can have
            source, problems = (
                Source(name),
                [Problem(key, name[:80], f"cannot be looked up: {error.strerror}")],
            )
        yield replace(source, media_dir=media_dir), problems


def _one(
    name: str, table: Mapping[str, Any], folder: Path, key: str, data: DataConfig
) -> tuple[Source, list[Problem]]:
    if name in table:
        source, problems = described(name, table[name], key)
        return (source, problems) if problems else _placed(source, table[name], folder, key)
    path = Path(name).expanduser()
    if path.exists():
        return _with_files(Source(name), path, key)
    if path.suffix.lower() in ENDINGS or name.startswith((".", "/", "~")):
        return Source(name), [Problem(key, name, "there is no such file", f"looked in {Path.cwd()}")]
    if name.count("/") == 1:
        return Source(name, hub=name, hub_kind=hubs_in_order()[0]), []
    return Source(name), [_unknown_name(name, table, folder, key, data)]


def _unknown_name(name: str, table: Mapping[str, Any], folder: Path, key: str, data: DataConfig) -> Problem:
    if not table:
        what = (
            f"{folder / INFO} does not exist"
            if not isinstance(data.dataset_dir, Mapping)
            else "the table is empty"
        )
        return Problem(key, name, what, "set data.dataset_dir to the folder that holds dataset_info.json")
    remedy = did_you_mean(name, table) or f"known are {', '.join(list(table)[:SHOWN])}"
    return Problem(
        key, name, f"is no dataset of {folder / INFO}, no file and no owner/name on the hub", remedy
    )


def _placed(source: Source, info: Mapping[str, Any], folder: Path, key: str) -> tuple[Source, list[Problem]]:
    """The first place that the table's row names."""
    for hub in hubs_in_order():
        if info.get(hub):
            return replace(source, hub=info[hub], hub_kind=hub), []
    if info.get("cloud_file_name"):
        return replace(source, hub=info["cloud_file_name"]), []
    path = folder / Path(info["file_name"]).expanduser()
    if not path.exists():
        near = (
            did_you_mean(path.name, [p.name for p in path.parent.iterdir()]) if path.parent.is_dir() else ""
        )
        return source, [Problem(key, source.name, f"its file {path} does not exist", near)]
    return _with_files(source, path, key)


def _with_files(source: Source, path: Path, key: str) -> tuple[Source, list[Problem]]:
    if path.is_dir():
        inside = path / source.folder if source.folder else path
        try:
            found = sorted(_data_files(inside))
        except _TooMany:
            what = f"{inside} holds more than {MOST_ENTRIES} files"
            return source, [Problem(key, source.name, what, "name the folder or file that holds the rows")]
    else:
        found = [path] if path.suffix.lower() in ENDINGS else []
    if not found:
        known = ", ".join(ending[1:] for ending in ENDINGS)
        return source, [
            Problem(key, source.name, f"{path} holds no data that can be read", f"known are {known}")
        ]
    return replace(source, files=tuple(p.absolute() for p in found)), []


class _TooMany(Exception):
    """A folder too large to be a dataset, such as the root of a file system."""


def _data_files(folder: Path) -> Iterator[Path]:
    """The files below a folder that can be read as rows. Raises _TooMany; a folder that may not be read is left out."""
    seen = 0
    for below, _, names in os.walk(folder):
        seen += len(names)
        if seen > MOST_ENTRIES:
            raise _TooMany
        yield from (
            Path(below, name) for name in names if name != INFO and Path(name).suffix.lower() in ENDINGS
        )


def _check_rows(source: Source, kind: str, key: str, skip_bad_rows: bool) -> list[Problem]:
    """The first bad rows of a dataset, or one line where the whole dataset is of another kind."""
    if not source.files:
        return []
    try:
        looked_at = list(
            itertools.islice(reader.rows(source, kind, reader.read_files(source)), reader.LOOKED_AT)
        )
    except (files.Unreadable, OSError) as error:
        return [Problem(key, source.name, str(error))]
    bad = [read for read in looked_at if isinstance(read.row, BadRow)]
    if not looked_at:
        return [Problem(key, source.name, f"{source.files[0]} holds no rows")]
    misfits = [read.row for read in bad if isinstance(read.row, reader.Misfit)]
    if misfits and len(bad) == len(looked_at):
        return [Problem(key, source.name, misfits[0].what, misfits[0].remedy)]
    if skip_bad_rows:
        return [] if len(bad) < len(looked_at) else [_nothing_left(source, kind, key, bad[0])]
    return listed([read.problem() for read in bad])


def media_problem(source: Source, key: str) -> Problem | None:
    """The refusal of a dataset with images, videos or sound: no model that is trained here would see them."""
    media = " and ".join(reader.settled_by_first_row(source).media)
    if not media:
        return None
    remedy = f"take the {media} out of its columns in dataset_info.json"
    if not source.format:
        remedy = f"describe the file in dataset_info.json, without the {media}"
    return Problem(key, source.name, f"has {media}, and only text is trained on", remedy)


def _nothing_left(source: Source, kind: str, key: str, first: reader.Read) -> Problem:
    return Problem(key, source.name, f"has no row of {MEANING[kind]} at its start; {first.problem()}")


def listed(problems: list[Problem]) -> list[Problem]:
    """The first ten problems of rows, a count of the rest, and the way to go on without them."""
    if not problems:
        return []
    rest = len(problems) - SHOWN
    count = f"{len(problems)} bad row{'s' if len(problems) > 1 else ''}" + (
        f", {rest} not shown" if rest > 0 else ""
    )
    hint = Problem("data", NO_VALUE, count, "correct them, or set data.skip_bad_rows=true to leave them out")
    return [*problems[:SHOWN], hint]
