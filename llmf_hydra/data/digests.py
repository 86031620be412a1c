"""Digests of the files that datasets are read from. Without torch, and without the network."""

import os
from pathlib import Path

from llmf_hydra.config.groups.data import DataConfig
from llmf_hydra.data.cache import digest
from llmf_hydra.data.sources import hub, resolve
from llmf_hydra.data.sources.dataset_info import Source
from llmf_hydra.runs.file_digests import Files, remembered


class DatasetFiles(Files):
    """The files of one dataset."""

    reading: str  # digest of what dataset_info.json says of it


def dataset_files(data: DataConfig) -> dict[str, DatasetFiles]:
    """The datasets of a config with their files; what lies on a hub and was not fetched yet has none.

    A dataset goes by its name, one named by its path by the last part of it: the folder is another one elsewhere.
    """
    found: dict[str, DatasetFiles] = {}
    for names in (data.dataset, data.eval_dataset):
        for source, problems in resolve.resolved(data, names, "data.dataset") if names else ():
            if not problems:
                found[_label(source, found)] = _of(source)
    return found


def _label(source: Source, taken: dict[str, DatasetFiles]) -> str:
    name = source.name if source.hub else Path(source.name).name
    count = sum(other == name or other.startswith(f"{name} (") for other in taken)
    return f"{name} ({count + 1})" if count else name


def _of(source: Source) -> DatasetFiles:
    read_as = [source.format, dict(source.columns), dict(source.tags), source.ranking, source.num_samples]
    read_as += [source.hub, source.subset, source.split, source.folder]
    files = source.files or hub.already_fetched(source)
    folder = os.path.commonpath([file.parent for file in files]) if files else ""
    digests = {os.path.relpath(file, folder): remembered(file) for file in files}
    return {"path": folder, "files": digests, "reading": digest.of(read_as)}
