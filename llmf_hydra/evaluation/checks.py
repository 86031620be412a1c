"""What an evaluation must be given. Torch-free."""

import re
from collections.abc import Iterator
from pathlib import Path

from llmf_hydra import optional
from llmf_hydra.checks.register import DISK, PACKAGES, rule
from llmf_hydra.config.groups.evaluation import EvaluationConfig
from llmf_hydra.config.schema import Config, entries, value_at
from llmf_hydra.errors import Problem, Refused, did_you_mean
from llmf_hydra.evaluation import layouts
from llmf_hydra.evaluation.hub_layout import is_repository
from llmf_hydra.evaluation.questions import fault
from llmf_hydra.evaluation.tasks import ALIASES, LM_EVAL, TASKS, Task, is_of_lm_eval, task_of

TASK, TASK_DIR, MODE, SAVE_DIR = (
    "evaluation.task",
    "evaluation.task_dir",
    "evaluation.download_mode",
    "evaluation.save_dir",
)
JOBS = ("evaluate",)
ON_HUB = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


@rule(TASK, jobs=JOBS)
def a_task_is_named(cfg: Config) -> Iterator[Problem]:
    """evaluation.task names a benchmark with its split, or a task of lm-eval as lm_eval:NAME."""
    task = cfg.evaluation.task
    known = (*TASKS, *ALIASES)
    if task is None:
        yield Problem(TASK, None, "no task is named", f"set it to {', '.join(TASKS)} or {LM_EVAL}NAME")
    elif is_of_lm_eval(task):
        if not task.removeprefix(LM_EVAL):
            yield Problem(TASK, task, "names no task of lm-eval", f"such as {LM_EVAL}hellaswag")
    elif task not in known:
        what = f"is not one of {', '.join(known)}, {LM_EVAL}NAME"
        yield Problem(TASK, task, what, did_you_mean(task, known))


@rule(TASK, "stage.name", jobs=JOBS)
def answers_are_text(cfg: Config) -> Iterator[Problem]:
    """A benchmark asks a model that gives text: stage=rm trains one that gives scores."""
    if cfg.stage.scores:
        what = f"asks for text, and stage={cfg.stage.name} is of a model that gives scores"
        yield Problem(TASK, cfg.evaluation.task, what, "job=predict gives its scores")


@rule(TASK, "evaluation.lang", MODE, jobs=JOBS)
def lm_eval_has_its_own_prompts(cfg: Config) -> Iterator[Problem]:
    """evaluation.lang and evaluation.download_mode are of the benchmarks that are read here: lm-eval's tasks bring
    their own prompts and data."""
    if is_of_lm_eval(str(cfg.evaluation.task)):
        for key in ("evaluation.lang", MODE):
            value = value_at(cfg, key)
            if value != entries()[key].param.default:
                what = f"has no effect: {TASK}={cfg.evaluation.task} brings its own prompts and data"
                yield Problem(key, value, what, "leave it out")


@rule(TASK, phase=PACKAGES, jobs=JOBS)
def lm_eval_is_installed(cfg: Config) -> Iterator[Problem]:
    """A task lm_eval:NAME needs lm-eval."""
    if is_of_lm_eval(str(cfg.evaluation.task)):
        missing = optional.missing("lm_eval", extra="lm-eval", key=f"{TASK}={cfg.evaluation.task}")
        yield from [missing] if missing is not None else []


@rule(TASK, TASK_DIR, MODE, "evaluation.n_shot", phase=DISK, jobs=JOBS)
def the_questions_are_there(cfg: Config) -> Iterator[Problem]:
    """evaluation.task_dir holds the benchmark's tables, with evaluation.n_shot examples for each subject, or is a
    repository of the datasets library: a folder, or owner/name on the hub. evaluation.download_mode acts on the latter.
    """
    given = cfg.evaluation
    if given.task is None or is_of_lm_eval(given.task):
        return
    task, folder = task_of(given.task), Path(given.task_dir).expanduser()
    if not folder.is_dir() and ON_HUB.fullmatch(given.task_dir):
        return
    wrong = layouts.problem(given.task_dir, task)
    if wrong is None:
        yield from _faults_of_tables(given, task)
    if wrong is None and given.download_mode != entries()[MODE].param.default:
        what = f"has no effect: {TASK_DIR}={given.task_dir} holds the benchmark's own files, which are read each time"
        yield Problem(MODE, given.download_mode, what, "leave it out")
    elif wrong is not None and not (folder.is_dir() and is_repository(folder)):
        yield wrong


def _faults_of_tables(given: EvaluationConfig, task: Task) -> Iterator[Problem]:
    """What is wrong with the tables' rows, which are read for it: a fraction of the time that a model takes to load."""
    try:
        wrong = fault(layouts.read(given.task_dir, task, examples=given.n_shot > 0), given.n_shot)
    except Refused as refused:
        yield from (problem for problem in refused.problems if isinstance(problem, Problem))
    else:
        yield from [wrong] if wrong is not None else []


@rule(SAVE_DIR, phase=DISK, jobs=JOBS)
def the_results_have_a_place(cfg: Config) -> Iterator[Problem]:
    """evaluation.save_dir is a new folder: results are never overwritten."""
    given = cfg.evaluation.save_dir
    if given is not None and Path(given).expanduser().exists():
        yield Problem(SAVE_DIR, given, "is there already", "name a new folder")
