"""`prepare`: the rows that a config names, tokenized, mixed, split and packed."""

import dataclasses
import json
import shutil
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset

from llmf_hydra import paths
from llmf_hydra.config.data import Data
from llmf_hydra.config.generation import Generation
from llmf_hydra.data import digest, files, reader, sources, store
from llmf_hydra.data.chat import Chat, load_chat
from llmf_hydra.data.columns import schema
from llmf_hydra.data.encode import make_encoder
from llmf_hydra.data.features import Setup
from llmf_hydra.data.report import DataReport, SourceReport
from llmf_hydra.data.table import Source
from llmf_hydra.data.tokenize import tokenized
from llmf_hydra.errors import Problem, Refused

Evaluation = Dataset | dict[str, Dataset] | None


@dataclass
class Prepared:
    """Tokenized data of a run. Columns are those of `features.COLUMNS`, with `row` and `source` beside them."""

    train: Dataset
    eval: Evaluation
    report: DataReport
    rejected: tuple[Path, ...] = ()  # files of the bad rows that were left out

    def write(self, run_folder: Path) -> None:
        """Write the data report, and the bad rows where there are any, into a run's folder."""
        self.report.write(run_folder)
        if self.rejected:
            with (run_folder / "rejected.jsonl").open("wb") as out:
                for path in self.rejected:
                    with path.open("rb") as part:
                        shutil.copyfileobj(part, out)


def prepare(
    data: Data, kind: str, tokenizer: Any, generation: Generation, seed: int, packing: bool
) -> Prepared:
    """Tokenize what `data` names, for one kind of training. Raises Refused."""
    chat = None if kind == "text" else load_chat(data, generation, tokenizer)
    setup = make_setup(data, kind, tokenizer, chat, packing)
    named = [("train", s) for s in sources.resolve(data, data.dataset or "", "dataset")]
    if data.eval_dataset:
        named += [("eval", s) for s in sources.resolve(data, data.eval_dataset, "eval_dataset")]
    identity = digest.of_tokenizer(tokenizer)
    report = DataReport(kind)
    parts: dict[str, list[Dataset]] = {"train": [], "eval": []}
    rejected: list[Path] = []
    for use, source in named:
        folder, found = _kept(data, setup, source, identity)
        counts = SourceReport(**json.loads((folder / "report.json").read_text(encoding="utf-8")))
        report.sources.append(dataclasses.replace(counts, use=use, found=found))
        parts[use].append(_loaded(folder, len(report.sources) - 1, data, source, seed))
        if counts.rows_rejected:
            rejected.append(folder / "rejected.jsonl")
    from datasets import concatenate_datasets

    train = concatenate_datasets(parts["train"])
    held: Evaluation = concatenate_datasets(parts["eval"]) if parts["eval"] else None
    if data.val_size:
        train, held = split(train, data.val_size, seed)
    report.train_rows, report.eval_rows = len(train), len(held) if held else None
    report.digest = digest.of([s.digest for s in report.sources])
    return Prepared(train, held, report, tuple(rejected))


def make_setup(data: Data, kind: str, tokenizer: Any, chat: Chat | None, packing: bool) -> Setup:
    """All that decides what a row becomes, from the config and the tokenizer."""
    eos = () if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,)
    begins = tuple(tokenizer("")["input_ids"])[:1] if kind == "text" else ()
    return Setup(
        kind,
        make_encoder(tokenizer),
        chat,
        data.cutoff_len,
        data.train_on_prompt,
        data.mask_history,
        split_long=kind == "text" and packing,
        bos=begins if begins == (tokenizer.bos_token_id,) else (),
        eos=eos if kind == "text" else (),
    )


def split(rows: Dataset, val_size: float, seed: int) -> tuple[Dataset, Dataset]:
    """Rows to train on and rows held out: a share below 1, or a count. The same for the same seed."""
    import numpy as np

    count = int(val_size) if val_size >= 1 else max(1, round(len(rows) * val_size))
    if count >= len(rows):
        what = f"holds out {count} of {len(rows)} rows"
        raise Refused([Problem("data.val_size", val_size, what, "leave rows to train on")])
    order = np.random.default_rng(seed).permutation(len(rows))
    return rows.select(np.sort(order[count:])), rows.select(np.sort(order[:count]))


def _identity(data: Data, setup: Setup, source: Source, tokenizer: str) -> str:
    chat = setup.chat
    return digest.of(
        {
            "version": digest.VERSION,
            "files": [digest.of_file(path) for path in source.files],
            "reading": [
                source.format,
                dict(source.columns),
                dict(source.tags),
                source.ranking,
                source.given_columns,
            ],
            "media": str(source.media_dir)
            if any(source.column(m) for m in ("images", "videos", "audios"))
            else "",
            "tokenizer": tokenizer,
            "chat": [chat.text, chat.stops, chat.default_system, chat.tool_format] if chat else None,
            "setup": [
                setup.kind,
                setup.cutoff_len,
                setup.train_on_prompt,
                setup.mask_history,
                setup.split_long,
                setup.bos,
                setup.eos,
            ],
            "rows": [data.max_samples, data.skip_bad_rows],
        }
    )


def _kept(data: Data, setup: Setup, source: Source, tokenizer: str) -> tuple[Path, bool]:
    name = _identity(data, setup, source, tokenizer)
    made = lambda folder: _make(data, setup, source, name, folder)  # noqa: E731
    return store.kept(paths.cache_dir() / "data", name, made, data.overwrite_cache)


def _make(data: Data, setup: Setup, source: Source, name: str, folder: Path) -> None:
    """Tokenize a source into `rows.arrow`, `report.json` and, if there are bad rows, `rejected.jsonl`."""
    counts = SourceReport(source.name, digest=name)
    bad: list[Problem] = []
    raw = islice(reader.read_files(source), data.max_samples)
    with (
        (folder / "rejected.jsonl").open("w", encoding="utf-8") as rejected,
        pa.OSFile(str(folder / "rows.arrow"), "wb") as sink,
        pa.ipc.new_stream(sink, schema(setup.kind)) as arrow,
    ):
        try:
            for done in tokenized(setup, source, raw, data.preprocessing_batch_size):
                bad += [read.problem() for read in done.bad] if not data.skip_bad_rows else []
                if len(bad) >= sources.SHOWN:
                    break
                for read in done.bad:
                    rejected.write(json.dumps(read.to_dict(), ensure_ascii=False, default=str) + "\n")
                counts.add(done.counts)
                if done.batch:
                    arrow.write_batch(done.batch)
        except (files.Unreadable, OSError) as error:
            raise Refused([Problem("data.dataset", source.name, str(error))]) from None
    if bad:
        raise Refused(sources.listed(bad))
    if not counts.rows_kept:
        what = f"has no row left of {counts.rows_read}"
        raise Refused([Problem("data.dataset", source.name, what, " ".join(counts.lines()[1:]))])
    (folder / "report.json").write_text(json.dumps(dataclasses.asdict(counts), indent=2), encoding="utf-8")


def _loaded(folder: Path, index: int, data: Data, source: Source, seed: int) -> Dataset:
    import numpy as np

    rows = Dataset.from_file(str(folder / "rows.arrow"))
    if source.num_samples:
        rows = rows.select(np.random.default_rng(seed).permutation(len(rows))[: source.num_samples])
    return rows.add_column("source", np.full(len(rows), index, np.int16))  # pyright: ignore
