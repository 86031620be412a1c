"""Datasets that are not on this disk: fetched once, as a file among the cache, or streamed from the hub."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from llmf_hydra import paths
from llmf_hydra.data.cache import digest, store
from llmf_hydra.data.sources.dataset_info import ENDINGS, HUGGING_FACE, MODELERS, MODELSCOPE, Source
from llmf_hydra.errors import Problem, Refused
from llmf_hydra.optional import require


def fetched(source: Source, key: str, streaming: bool = False) -> Source:
    """The source with its files; one that has them already is given back. Raises Refused.

    When streaming, a dataset of the Hugging Face hub stays there, and its rows come as they are read.
    """
    if source.files:
        return source
    if streaming and "://" not in source.hub and source.hub_kind == HUGGING_FACE:
        try:
            next(streamed(source), None)
        except Exception as error:
            raise _refused(source, key, error) from error
        return replace(source, streamed=True)
    name = _name(source)
    fetch = _fetch_cloud if "://" in source.hub else _FETCH[source.hub_kind]
    folder, _ = store.obtain(paths.cache_dir() / "hub", name, lambda made: _fetched(fetch, source, made, key))
    return replace(source, files=tuple(sorted(folder.iterdir())))


def already_fetched(source: Source) -> tuple[Path, ...]:
    """The files of a hub's dataset that an earlier run has fetched; none where there are none."""
    folder = paths.cache_dir() / "hub" / _name(source)
    return tuple(sorted(folder.iterdir())) if source.hub and folder.is_dir() else ()


def _name(source: Source) -> str:
    return digest.of([source.hub, source.subset, source.split, source.folder, source.hub_kind])


def _fetched(fetch: Callable[[Source, Path], None], source: Source, folder: Path, key: str) -> None:
    try:
        fetch(source, folder)
    except Refused:  # the hub's package is missing
        raise
    except Exception as error:  # the hubs' own libraries raise anything from KeyError to their own classes
        raise _refused(source, key, error) from error


def _refused(source: Source, key: str, error: Exception) -> Refused:
    reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    remedy = "is the network there, and the name right? or name a file instead"
    what = f"could not be loaded from {_where(source)}: {reason}"
    return Refused([Problem(key, source.name, what, remedy)])


def streamed(source: Source) -> Iterator[dict[str, Any]]:
    """The rows of a dataset of the Hugging Face hub, as they come."""
    from datasets import load_dataset

    where: Any = {"split": source.split, "data_dir": source.folder}
    yield from load_dataset(source.hub, source.subset, streaming=True, **where)


def _where(source: Source) -> str:
    if "://" in source.hub:
        return source.hub
    return f"{_NAMES[source.hub_kind]} ({source.hub})"


def _fetch_hub(source: Source, folder: Path) -> None:
    from datasets import load_dataset

    rows: Any = load_dataset(source.hub, source.subset, split=source.split, data_dir=source.folder)
    rows.to_parquet(str(folder / "rows.parquet"))


def _fetch_modelscope(source: Source, folder: Path) -> None:
    modelscope: Any = require("modelscope", extra="modelscope", key=f"dataset {source.name}")
    rows = modelscope.MsDataset.load(
        source.hub, subset_name=source.subset, split=source.split, data_dir=source.folder
    )
    rows.to_hf_dataset().to_parquet(str(folder / "rows.parquet"))


def _fetch_modelers(source: Source, folder: Path) -> None:
    """Modelers keeps a dataset as a repository of files: they are downloaded, then read as a local folder is."""
    from datasets import load_dataset

    hub: Any = require("openmind_hub", extra="openmind", key=f"dataset {source.name}")
    local = hub.snapshot_download(repo_id=source.hub, repo_type="dataset")
    rows: Any = load_dataset(str(local), source.subset, split=source.split, data_dir=source.folder)
    rows.to_parquet(str(folder / "rows.parquet"))


_FETCH = {HUGGING_FACE: _fetch_hub, MODELSCOPE: _fetch_modelscope, MODELERS: _fetch_modelers}
_NAMES = {HUGGING_FACE: "the Hugging Face hub", MODELSCOPE: "ModelScope", MODELERS: "Modelers"}


def _fetch_cloud(source: Source, folder: Path) -> None:
    """Any address that fsspec knows: s3://, gs://, https://, file://; a folder with all its files."""
    import fsspec

    system, path = fsspec.url_to_fs(source.hub)
    found = system.find(path) if system.isdir(path) else [path]
    wanted = [one for one in found if Path(one).suffix.lower() in ENDINGS]
    if not wanted:
        raise FileNotFoundError(f"there is no data of a known kind ({', '.join(ENDINGS)})")
    for number, one in enumerate(wanted):
        system.get_file(one, str(folder / f"{number:05d}-{Path(one).name}"))
