"""`job=predict` with a reward model: scores of the answers that the rows hold, of both answers of a pair, or of a
dialogue's last one."""

import logging
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from llmf_hydra.config.schema import Config
from llmf_hydra.data.tokenize.columns import IGNORED
from llmf_hydra.jobs import predict_rows
from llmf_hydra.jobs.predict_rows import TokenRow
from llmf_hydra.jobs.results import Ledger, Line, Progress, note_metrics
from llmf_hydra.serve.engine import Engine

log = logging.getLogger(__name__)

PAIR = ("chosen", "rejected")


def score(cfg: Config, engine: Engine, out: Path, file: Path, batch_size: int) -> None:
    """Write a line with its scores for each row, in the order of the dataset, and the metrics. Raises Refused."""
    pairs = predict_rows.hold_pairs(cfg)
    rows = predict_rows.tokenized(cfg, engine, "preference" if pairs else "dialogue", out)
    said = [_sequences(row) for row in rows]
    ledger = Ledger(file, predict_rows.digest([ids for one in said for ids in one.values()]))
    progress = Progress(len(rows), len(ledger), "rows", "tokens")
    order = predict_rows.longest_first([max(one.values(), key=len) for one in said])
    left = [number for number in order if number not in ledger]
    for start in range(0, len(left), batch_size):
        numbers = left[start : start + batch_size]
        flat = [(number, name, ids) for number in numbers for name, ids in said[number].items()]
        given = engine.score([ids for _, _, ids in flat])
        written = {number: _texts(rows[number], engine) for number in numbers}
        for (number, name, _), value in zip(flat, given, strict=True):
            written[number][name] = round(value, 6)
        ledger.add(written)
        progress.tell(len(ledger), sum(len(ids) for _, _, ids in flat))
    lines = ledger.finish()
    metrics = _of_pairs(lines) if pairs else {"score": mean(line["score"] for line in lines)}
    note_metrics(out, metrics | progress.metrics(), "accuracy" if pairs else "score")
    told = [f"{name}: {value:.4f}" for name, value in metrics.items()]
    log.info("%s", "\n".join([*told, f"{file} holds the scores of {len(rows)} rows"]))


def _sequences(row: TokenRow) -> dict[str, list[int]]:
    """The sequences of a row that get a score, by the name of the score."""
    if "prompt_ids" in row:
        return {f"score_{name}": [*row["prompt_ids"], *row[f"{name}_ids"]] for name in PAIR}
    return {"score": row["input_ids"][: _last_answer(row)[1]]}


def _texts(row: TokenRow, engine: Engine) -> Line:
    def text(ids: Sequence[int], *, skip: bool) -> str:
        return str(engine.loaded.tokenizer.decode(list(ids), skip_special_tokens=skip))

    if "prompt_ids" in row:
        answers = {name: text(row[f"{name}_ids"], skip=True) for name in PAIR}
        return {"prompt": text(row["prompt_ids"], skip=False), **answers}
    start, end = _last_answer(row)
    ids = row["input_ids"]
    return {"prompt": text(ids[:start], skip=False), "answer": text(ids[start:end], skip=True)}


def _last_answer(row: TokenRow) -> tuple[int, int]:
    """Where the last answer of a dialogue begins and ends."""
    labels = row["labels"]
    end = max(at for at, label in enumerate(labels) if label != IGNORED) + 1
    return max((at for at in range(end) if labels[at] == IGNORED), default=-1) + 1, end


def _of_pairs(lines: Sequence[Line]) -> dict[str, float]:
    margins = [line["score_chosen"] - line["score_rejected"] for line in lines]
    return {"accuracy": mean(100.0 * (margin > 0) for margin in margins), "margin": mean(margins)}
