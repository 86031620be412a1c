"""`job=evaluate`: a multiple-choice benchmark, or a task of lm-eval, on a model."""

import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmf_hydra.config.schema import Config
from llmf_hydra.data.chat.template import Chat
from llmf_hydra.errors import Problem, Refused
from llmf_hydra.evaluation import hub_layout, layouts, lm_eval
from llmf_hydra.evaluation.accuracy import Answer, Summary, summarize
from llmf_hydra.evaluation.answering import Asked, Asker, Chosen, chosen, letter_ids
from llmf_hydra.evaluation.questions import Subject, fault
from llmf_hydra.evaluation.tasks import is_of_lm_eval, task_of
from llmf_hydra.jobs.results import Ledger, Line, Progress, note_metrics
from llmf_hydra.runs import folder as runs
from llmf_hydra.runs.checkpoints import follow_umask
from llmf_hydra.serve.engine import Engine
from llmf_hydra.serve.loading import Loaded
from llmf_hydra.serve.open import open_engine

log = logging.getLogger(__name__)

QUESTIONS, RESULTS, TEXT = "questions.jsonl", "results.json", "results.log"


def run(cfg: Config, out: Path, *, resume: bool) -> None:
    """Ask, print the accuracies, and leave them with each question's answer in the run's folder. Raises Refused."""
    engine = open_engine(cfg, slots=1)
    try:
        evaluate = _of_lm_eval if is_of_lm_eval(str(cfg.evaluation.task)) else _benchmark
        evaluate(cfg, engine, out)
    finally:
        engine.close()
    if cfg.evaluation.save_dir is not None:
        _save(out, Path(cfg.evaluation.save_dir).expanduser())


def _benchmark(cfg: Config, engine: Engine, out: Path) -> None:
    subjects = _subjects(cfg)
    asked = _asked(cfg, engine, subjects)
    batches = _batches(asked, cfg.evaluation.batch_size)
    letters = letter_ids(engine.loaded.tokenizer, _all_letters(subjects))
    ledger = Ledger(out / QUESTIONS, _key(asked))
    progress = Progress(len(asked), len(ledger), "questions", "tokens")
    for numbers in batches:
        if all(number in ledger for number in numbers):
            continue
        batch = [asked[number] for number in numbers]
        answers = chosen(engine.next_logits([one.ids for one in batch]), batch, letters)
        ledger.add({n: _line(one, answer) for n, one, answer in zip(numbers, batch, answers, strict=True)})
        progress.tell(len(ledger), sum(len(one.ids) for one in batch))
    lines = ledger.finish()
    summary = summarize([Answer(line["subject"], line["category"], line["correct"]) for line in lines])
    _leave(cfg, out, summary, lines)


def _subjects(cfg: Config) -> list[Subject]:
    given, task = cfg.evaluation, task_of(str(cfg.evaluation.task))
    folder, examples = Path(given.task_dir).expanduser(), given.n_shot > 0
    if folder.is_dir() and layouts.find(given.task_dir, task.benchmark) is not None:
        subjects = layouts.read(given.task_dir, task, examples=examples)
    else:
        subjects = hub_layout.read(
            str(folder) if folder.is_dir() else given.task_dir,
            task,
            examples=examples,
            download_mode=given.download_mode,
            cache_dir=cfg.model.cache_dir,
            token=cfg.model.hf_hub_token,
        )
    wrong = fault(subjects, given.n_shot)
    if wrong is not None:
        raise Refused([wrong])
    return subjects


def _asked(cfg: Config, engine: Engine, subjects: Sequence[Subject]) -> list[Asked]:
    """The prompts of all questions, in the order of the subjects."""
    given = cfg.evaluation
    asker = Asker(
        _chat(engine),
        engine.loaded.tokenizer,
        n_shot=given.n_shot,
        seed=given.seed,
        lang=given.lang,
        most_tokens=engine.loaded.limit,
    )
    asked = [one for subject in subjects for one in asker.ask(subject)]
    shortened = sum(one.shots < given.n_shot for one in asked)
    if shortened:
        log.info("%d questions have fewer examples before them, since the model reads no more", shortened)
    return asked


def _chat(engine: Engine) -> Chat:
    speech = engine.loaded.speech
    if speech is None or speech.chat is None:
        what = "the tokenizer has no chat template of its own"
        remedy = "set data.template=fewshot for a model that was pre-trained alone, or the one that it was tuned with"
        raise Refused([Problem("data.template", None, what, remedy)])
    return speech.chat


def _batches(asked: Sequence[Asked], size: int) -> list[list[int]]:
    """The numbers of the questions in batches of like length, the longest first: what doesn't fit fails at once."""
    order = sorted(range(len(asked)), key=lambda number: -len(asked[number].ids))
    return [order[at : at + size] for at in range(0, len(order), size)]


def _all_letters(subjects: Sequence[Subject]) -> str:
    return max((question.letters for one in subjects for question in one.questions), key=len, default="")


def _key(asked: Sequence[Asked]) -> str:
    """What decides the answers beside the model, which a run's config names."""
    return hashlib.sha256(json.dumps([one.ids for one in asked]).encode()).hexdigest()


def _line(asked: Asked, answer: Chosen) -> Line:
    question = asked.subject.questions[asked.number]
    return {
        "subject": asked.subject.key,
        "category": asked.subject.category,
        "number": asked.number,
        "question": question.text,
        "answer": question.answer,
        "prediction": answer.letter,
        "correct": answer.letter == question.answer,
        "probabilities": answer.probabilities,
        "shots": asked.shots,
    }


def _leave(cfg: Config, out: Path, summary: Summary, lines: Sequence[Line]) -> None:
    """Write and print the results."""
    given = cfg.evaluation
    settings = {name: getattr(given, name) for name in ("task", "n_shot", "lang", "seed")}
    runs.write_json(out / RESULTS, {**settings, **summary.as_dict()})
    text = "\n".join(summary.lines())
    (out / TEXT).write_text(text + "\n", encoding="utf8")
    metrics = {"accuracy": summary.average.accuracy}
    metrics |= {f"accuracy/{name}": of.accuracy for name, of in summary.categories.items()}
    note_metrics(out, metrics, "accuracy")
    log.info("%s\n%s holds each of the %d questions", text, out / QUESTIONS, len(lines))


def _of_lm_eval(cfg: Config, engine: Engine, out: Path) -> None:
    loaded = engine.loaded
    if not isinstance(loaded, Loaded):
        what = "the tasks of lm-eval are put to a model of Transformers"
        raise Refused([Problem("model.infer_backend", cfg.model.infer_backend, what, "leave it out")])
    found: dict[str, Any] = lm_eval.evaluate(loaded.network, loaded.tokenizer, cfg.evaluation)
    results: dict[str, dict[str, Any]] = found["results"]
    runs.write_json(
        out / RESULTS, {"task": cfg.evaluation.task, "results": results, "versions": found.get("versions")}
    )
    with (out / QUESTIONS).open("w", encoding="utf8") as written:
        for task, samples in found.get("samples", {}).items():
            for sample in samples:
                written.write(json.dumps({"task": task, **sample}, ensure_ascii=False, default=str) + "\n")
    metrics = {
        f"{task}/{name}": float(value)
        for task, values in results.items()
        for name, value in values.items()
        if isinstance(value, int | float)
    }
    text = "\n".join(f"{name}: {value:.4f}" for name, value in metrics.items())
    (out / TEXT).write_text(text + "\n", encoding="utf8")
    first = next((name for name in metrics if "stderr" not in name and "sample_len" not in name), None)
    note_metrics(out, metrics, first)
    log.info("%s", text)


def _save(out: Path, save_dir: Path) -> None:
    """A copy of the results, whole or not at all. Raises Refused where somebody has made the folder meanwhile."""
    save_dir.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{save_dir.name}.", dir=save_dir.parent))
    try:
        for name in (QUESTIONS, RESULTS, TEXT):
            shutil.copyfile(out / name, draft / name)
        follow_umask(draft)
        draft.chmod(0o755)
        if save_dir.exists():
            raise Refused([Problem("evaluation.save_dir", save_dir, "is there already", "name a new folder")])
        draft.rename(save_dir)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
