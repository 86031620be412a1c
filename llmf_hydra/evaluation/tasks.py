"""What `evaluation.task` names: a benchmark and one of its splits, or a task of lm-eval. Without torch."""

from dataclasses import dataclass

LM_EVAL = "lm_eval:"  # begins the name of a task of lm-eval
ALIASES = {"eval_validation": "ceval_validation"}
TASKS = ("mmlu_test", "ceval_validation", "cmmlu_test")
SPLITS = {"test": "test", "validation": "val"}  # a task's name of its split -> that of the files
EXAMPLES = "dev"  # the split that few-shot examples are taken from


@dataclass(frozen=True)
class Task:
    """A benchmark, and the split whose questions are asked."""

    benchmark: str  # mmlu, ceval or cmmlu
    split: str  # as the files call it: test or val


def is_of_lm_eval(name: str) -> bool:
    """Whether a task is one of lm-eval."""
    return name.startswith(LM_EVAL)


def task_of(name: str) -> Task:
    """The task of one of TASKS or ALIASES."""
    benchmark, _, split = ALIASES.get(name, name).partition("_")
    return Task(benchmark, SPLITS[split])
