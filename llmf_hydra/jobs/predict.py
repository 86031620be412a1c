"""`job=predict`: a model's answers to the prompts of a dataset, or the scores that a reward model gives its answers."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

from llmf_hydra.config.schema import Config
from llmf_hydra.errors import Problem, Refused
from llmf_hydra.jobs import predict_rows, predict_scores
from llmf_hydra.jobs.results import Ledger, Line, Progress, note_metrics
from llmf_hydra.serve.engine import Decoding, Engine, Request
from llmf_hydra.serve.open import open_engine
from llmf_hydra.training.text_metrics import scores

log = logging.getLogger(__name__)

PREDICTIONS = "predictions.jsonl"
AHEAD = 4  # batches that the engine is given at once: a short answer's place is taken by the next prompt
SEEDS = 1_000_003  # numbers of rows that have seeds of their own


@dataclass(frozen=True)
class Item:
    """A row to be answered."""

    ids: list[int]
    prompt: str
    label: str | None  # the row's own answer


def run(cfg: Config, out: Path, *, resume: bool) -> None:
    """Answer, and leave `predictions.jsonl` in the order of the dataset, with the metrics of the answers. Raises
    Refused."""
    slots = cfg.training.per_device_eval_batch_size
    engine = open_engine(cfg, slots=slots)
    try:
        if engine.loaded.scores:
            predict_scores.score(cfg, engine, out, out / PREDICTIONS, slots)
        else:
            _answer(cfg, engine, out, slots)
    finally:
        engine.close()


def _answer(cfg: Config, engine: Engine, out: Path, slots: int) -> None:
    items = list(_items(cfg, engine, out))
    ids = [item.ids for item in items]
    _check_lengths(cfg, ids, engine.loaded.limit)
    generation = cfg.generation
    decoding = Decoding.of(generation, num_beams=generation.eval_num_beams or generation.num_beams)
    ledger = Ledger(out / PREDICTIONS, predict_rows.digest(ids))
    progress = Progress(len(items), len(ledger), "answers", "tokens")
    left = [number for number in predict_rows.longest_first(ids) if number not in ledger]
    for start in range(0, len(left), slots * AHEAD):
        numbers = left[start : start + slots * AHEAD]
        answers = engine.generate(
            [Request(ids[number], _seeded(decoding, cfg.training.seed, number)) for number in numbers]
        )
        ledger.add(
            {
                number: {"prompt": items[number].prompt, "answer": answer.text, "label": items[number].label}
                for number, answer in zip(numbers, answers, strict=True)
            }
        )
        progress.tell(len(ledger), sum(len(answer.tokens) for answer in answers))
    _leave(out, ledger.finish(), progress)


def _check_lengths(cfg: Config, ids: Sequence[Sequence[int]], limit: int | None) -> None:
    """Raise Refused for a prompt that leaves the model no room for an answer."""
    for number, one in enumerate(ids, 1):
        if limit is not None and len(one) >= limit:
            what = f"lets prompt {number} have {len(one)} tokens, and the model takes {limit} with its answer"
            raise Refused([Problem("data.cutoff_len", cfg.data.cutoff_len, what, "lower it")])


def _seeded(decoding: Decoding, seed: int, number: int) -> Decoding:
    """Each row has random numbers of its own, so that an answer depends neither on the batch nor on a resumption."""
    return replace(decoding, seed=seed * SEEDS + number)


def _items(cfg: Config, engine: Engine, out: Path) -> Iterator[Item]:
    """The rows in the order of the datasets; a plain text is to go on."""
    kind = "text" if cfg.stage.rows == "text" else "prompt"
    rows = predict_rows.tokenized(cfg, engine, kind, out)
    labels = predict_rows.labels(cfg, rows)
    tokenizer = engine.loaded.tokenizer
    for row in rows:
        ids: list[int] = row["input_ids" if kind == "text" else "prompt_ids"]
        if kind == "text" and ids[-1:] == [tokenizer.eos_token_id]:
            ids = ids[:-1]
        label = labels.get((row["source"], row["row"]))
        yield Item(ids, str(tokenizer.decode(ids, skip_special_tokens=False)), label)


def _leave(out: Path, lines: Sequence[Line], progress: Progress) -> None:
    """Compare the answers with the labels where there are some, write and print the results."""
    labelled = [line for line in lines if line["label"] is not None]
    found = [scores(line["answer"], line["label"]) for line in labelled]
    metrics = {name: mean(one[name] for one in found) for name in found[0]} if found else {}
    note_metrics(out, metrics | progress.metrics(), "rouge-l" if metrics else None)
    told = [f"{name}: {value:.2f}" for name, value in metrics.items()]
    log.info("%s", "\n".join([*told, f"{out / PREDICTIONS} holds the {len(lines)} answers"]))
