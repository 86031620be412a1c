"""`prepare`: the rows that a config names, tokenized, mixed, split and packed."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from datasets import Dataset, IterableDataset

from llmf_hydra.config.groups.data import DataConfig
from llmf_hydra.config.groups.generation import GenerationConfig
from llmf_hydra.data.cache import digest, ranks, store, tokenized_folder, tokenized_path
from llmf_hydra.data.cache.dataset_cache import REJECTED, ROWS, cache_root, cached_source
from llmf_hydra.data.mix import concatenated, mixed, sample, split
from llmf_hydra.data.packing import write_packed
from llmf_hydra.data.report import DataReport
from llmf_hydra.data.sources import hub, resolve
from llmf_hydra.data.sources.dataset_info import Source
from llmf_hydra.data.streaming import stream
from llmf_hydra.data.tokenize.features import Setup
from llmf_hydra.data.tokenize.setup import make_setup, settings, source_digest
from llmf_hydra.errors import Problem, Refused

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Evaluation = Dataset | IterableDataset | dict[str, Dataset] | dict[str, IterableDataset] | None
Named = tuple[str, Source]  # its use (train or eval), and the source
Known = tuple[str, Source, str]  # with the digest of all that its tokens depend on


@dataclass
class Prepared:
    """Tokenized data of a run. Columns are those of `features.TOKEN_COLUMNS`, with `row` and `source` beside them.

    When streaming, the datasets are iterable, and the counts of the report are those of what was read so far.
    """

    train: Dataset | IterableDataset
    eval: Evaluation
    report: DataReport
    rejected: tuple[Path, ...] = ()  # files of the bad rows that were left out

    def write(self, run_folder: Path) -> None:
        """Write the data report, and the bad rows where there are any, into a run's folder."""
        self.report.write(run_folder)
        if self.rejected:
            with (run_folder / REJECTED).open("wb") as out:
                for path in self.rejected:
                    with path.open("rb") as part:
                        shutil.copyfileobj(part, out)


def prepare(
    data: DataConfig,
    kind: str,
    tokenizer: "PreTrainedTokenizerBase",
    generation: GenerationConfig,
    seed: int,
    packing: bool,
) -> Prepared:
    """Tokenize what `data` names, for one kind of training. Raises Refused."""
    named = _named(data)
    media = tuple(sorted({name for _, source in named for name in source.media}))
    setup = make_setup(data, kind, tokenizer, generation, packing, media)
    chosen = settings(data, setup, tokenizer)
    if data.streaming:
        train, held, report = stream(data, setup, named, seed, packing)
        read = [[use, source_digest(source, chosen, digest.of_samples)] for use, source in named]
        report.digest = digest.of([read, data.buffer_size, *_shape(data, seed, packing)])
        return Prepared(train, held, report)
    known = [(use, source, source_digest(source, chosen)) for use, source in named]
    if not data.tokenized_path:
        return Prepared(*_prepared(data, setup, known, seed, packing))
    return Prepared(*_at_path(data, setup, known, chosen, seed, packing))


def _named(data: DataConfig) -> list[Named]:
    """The sources with their files; those on a hub are fetched."""
    found: list[Named] = []
    for use, field, names in (
        ("train", "dataset", data.dataset),
        ("eval", "eval_dataset", data.eval_dataset),
    ):
        if names:
            found += [
                (use, _text_only(hub.fetched(source, f"data.{field}", data.streaming), f"data.{field}"))
                for source in resolve.resolve(data, names, field)
            ]
    return found


def _text_only(source: Source, key: str) -> Source:
    """The source; refused where its rows have media that no table describes, as they are seen once it is fetched."""
    if not source.format and (problem := resolve.media_problem(source, key)):
        raise Refused([problem])
    return source


def _prepared(
    data: DataConfig, setup: Setup, known: list[Known], seed: int, packing: bool
) -> tokenized_path.Saved:
    report = DataReport(setup.kind, notes=setup.notes)
    parts: dict[str, dict[str, Dataset]] = {"train": {}, "eval": {}}
    rejected: list[Path] = []
    for index, (use, source, name) in enumerate(known):
        folder, counts = cached_source(data, setup, source, name)
        counts.use = use
        report.sources.append(counts)
        parts[use][source.name] = _loaded(folder, index, source, seed)
        rejected += [folder / REJECTED] if counts.rows_rejected else []
    if not parts["train"]:
        raise Refused([Problem("data.dataset", data.dataset, "names no data", "set a dataset")])
    train: Dataset = mixed(list(parts["train"].values()), data, seed)
    held: Dataset | None = concatenated(list(parts["eval"].values())) if parts["eval"] else None
    if data.val_size:
        train, held = split(train, data.val_size, seed)
    report.train_rows, report.eval_rows = len(train), len(held) if held is not None else 0
    report.digest = digest.of([[use, name] for use, _, name in known] + _shape(data, seed, packing))
    if packing:
        train, report.packed = _packed(data, train, report.digest)
    names = [source.name for _, source, _ in known]
    evaluation = _each(held, names) if held is not None and data.eval_on_each_dataset else held
    return train, evaluation, report, tuple(rejected)


def _at_path(
    data: DataConfig, setup: Setup, known: list[Known], chosen: Mapping[str, object], seed: int, packing: bool
) -> tokenized_path.Saved:
    """Load what lies at data.tokenized_path, or make it and save it there."""
    path = Path(str(data.tokenized_path)).expanduser()
    datasets = [[use, source.name, source_digest(source, {})] for use, source, _ in known]
    made_with = {**chosen, **_shape_by_name(data, seed, packing), "datasets": datasets}
    if tokenized_folder.is_saved(path):
        return tokenized_path.load(path, made_with)
    kept = _prepared(data, setup, known, seed, packing)
    if ranks.makes_data(data.data_shared_file_system):
        tokenized_path.save(path, made_with, kept)
    return kept


def _shape_by_name(data: DataConfig, seed: int, packing: bool) -> dict[str, object]:
    """What mixing, splitting and packing depend on."""
    return {
        "training.seed": seed,
        "data.mix_strategy": data.mix_strategy,
        "data.interleave_probs": data.interleave_probs,
        "data.val_size": data.val_size,
        "data.eval_on_each_dataset": data.eval_on_each_dataset,
        "data.packing": packing,
        "data.neat_packing": data.neat_packing,
    }


def _shape(data: DataConfig, seed: int, packing: bool) -> list[object]:
    return [*_shape_by_name(data, seed, packing).items()]


def _loaded(folder: Path, index: int, source: Source, seed: int) -> Dataset:
    rows = Dataset.from_file(str(folder / ROWS))
    if source.num_samples:
        rows = sample(rows, source.num_samples, seed)
    return rows.add_column("source", np.full(len(rows), index, np.int16))  # pyright: ignore


def _packed(data: DataConfig, rows: Dataset, name: str) -> tuple[Dataset, dict[str, float]]:
    """The rows in packs, kept on disk like the rows themselves."""
    packed_name = digest.of([name, data.cutoff_len, data.neat_packing])

    def make(folder: Path) -> None:
        made = write_packed(rows, data.cutoff_len, data.neat_packing, folder / ROWS)
        (folder / "packed.json").write_text(json.dumps(made), encoding="utf-8")

    folder, _ = store.obtain(
        cache_root(),
        packed_name,
        make,
        again=data.overwrite_cache,
        maker=ranks.makes_data(data.data_shared_file_system),
    )
    return Dataset.from_file(str(folder / ROWS)), json.loads(
        (folder / "packed.json").read_text(encoding="utf-8")
    )


def _each(held: Dataset, names: list[str]) -> dict[str, Dataset]:
    """The held-out rows by their dataset."""
    of = np.asarray(held.with_format("numpy")["source"])
    return {names[index]: held.select(np.flatnonzero(of == index)) for index in np.unique(of)}
