"""What became of the rows: counts for people and for the run's folder."""

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

NAMED = 10  # rows that are named, of those left out


@dataclass
class SourceReport:
    """One dataset. Lengths and counts are in tokens; rows are counted from 1."""

    name: str
    use: str = "train"  # or eval
    rows_read: int = 0
    rows_kept: int = 0
    rows_cut: int = 0
    tokens_cut: int = 0
    answers_cut: int = 0  # answers that lost their end to data.cutoff_len
    rows_special: int = 0  # their text holds what the tokenizer takes for a special token
    rows_repeated: int = 0  # a key stands twice in them
    rows_equal: int = 0  # chosen is the same as rejected
    rows_good: int = 0  # of rows with a label
    rows_bad: int = 0
    rows_untrained: int = 0  # left out: nothing of them would be trained
    untrained: list[int] = field(default_factory=list)  # the first of them
    rows_rejected: int = 0  # left out: they could not be read
    rejected: list[int] = field(default_factory=list)
    tokens: int = 0
    trained_tokens: int = 0
    lengths: int = 0  # of the rows, added up; of ranked answers the longer counts
    longest: int = 0
    digest: str = ""
    found: bool = False  # tokenized before, and found
    files: dict[str, int] = field(default_factory=dict)  # file -> rows: where a row's number leads

    @property
    def mean(self) -> float:
        """Mean length of the rows kept."""
        return (self.lengths or self.tokens) / self.rows_kept if self.rows_kept else 0.0  # of older caches

    def add(self, other: "SourceReport") -> None:
        """Count another batch of the same dataset in."""
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.longest = max(self.longest, other.longest)
        self.untrained = (self.untrained + other.untrained)[:NAMED]
        self.rejected = (self.rejected + other.rejected)[:NAMED]
        for file, rows in other.files.items():
            self.files[file] = self.files.get(file, 0) + rows

    def lines(self) -> list[str]:
        """For people: a line of counts, and a line for each kind of loss."""
        state = "found in the cache" if self.found else "tokenized"
        lengths = f"mean {self.mean:.0f}, longest {self.longest}"
        lines = [
            f"{self.name} ({self.use}): {self.rows_kept} of {self.rows_read} rows, {self.tokens} tokens, "
            f"{self.trained_tokens} trained, {lengths}; {state}, {self.digest[:12]}",
        ]
        if self.rows_cut:
            lines.append(f"  cut to data.cutoff_len: {self.rows_cut} rows, {self.tokens_cut} tokens lost")
        lines += self._oddities()
        if self.rows_untrained:
            lines.append(
                f"  left out, nothing to train: {self.rows_untrained} rows ({_named(self.untrained)})"
            )
        if self.rows_rejected:
            lines.append(
                f"  left out, bad: {self.rows_rejected} rows ({_named(self.rejected)}), see rejected.jsonl"
            )
        return lines

    def _oddities(self) -> Iterator[str]:
        """What is trained as it is, and is seldom meant."""
        if self.answers_cut:
            yield f"  answers cut: {self.answers_cut}, trained without an end of turn"
        if self.rows_special:
            yield (
                f"  special tokens within their text: {self.rows_special} rows, read as special; "
                "model.split_special_tokens=true makes them plain text"
            )
        if self.rows_repeated:
            yield f"  a key twice in a row: {self.rows_repeated} rows, the last value counts"
        if self.rows_equal:
            yield f"  chosen equal to rejected: {self.rows_equal} rows, nothing to prefer"
        if bool(self.rows_good) != bool(self.rows_bad):
            count, label = (self.rows_good, "good") if self.rows_good else (self.rows_bad, "bad")
            yield f"  one-sided: all {count} answers are labelled {label}"


_COUNTS = (
    "rows_read", "rows_kept", "rows_cut", "tokens_cut", "answers_cut", "rows_special", "rows_repeated", "rows_equal",
    "rows_good", "rows_bad", "rows_untrained", "rows_rejected",
    "tokens", "trained_tokens", "lengths",
)  # fmt: skip


def _named(rows: list[int]) -> str:
    return "row " + ", ".join(map(str, rows))


@dataclass
class DataReport:
    """All datasets of a run, and what mixing, splitting and packing made of them."""

    kind: str
    sources: list[SourceReport] = field(default_factory=list)
    train_rows: int | None = None  # None when streaming
    eval_rows: int | None = None
    notes: list[str] = field(default_factory=list)  # of the template
    packed: dict[str, float] | None = None  # sequences, full (share of cutoff_len that is used)
    digest: str = ""

    def place(self, source: int, row: int) -> str:
        """Where a tokenized row came from, by its columns `source` and `row`: `train.jsonl row 7`."""
        for file, count in self.sources[source].files.items():
            if row <= count:
                return f"{file} row {row}"
            row -= count
        return f"{self.sources[source].name} row {row}"

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        sources = [{**dataclasses.asdict(s), "mean": round(s.mean, 2)} for s in self.sources]
        return {**dataclasses.asdict(self), "sources": sources}

    def lines(self) -> list[str]:
        """For people."""
        lines = [*(line for source in self.sources for line in source.lines()), *self.notes]
        if self.packed:
            full = f"{self.packed['full']:.1%}"
            lines.append(f"packed into {self.packed['sequences']} sequences, {full} full")
        if self.train_rows is not None:
            held_out = f", {self.eval_rows} for evaluation" if self.eval_rows else ""
            lines.append(f"{self.train_rows} rows to train on{held_out}; digest {self.digest[:12]}")
        return lines

    def write(self, run_folder: Path) -> Path:
        """Write `data.json` into a run's folder."""
        path = run_folder / "data.json"
        path.write_text(json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        return path
