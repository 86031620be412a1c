"""Tasks of lm-eval (EleutherAI's harness) on the loaded model: `evaluation.task=lm_eval:hellaswag`."""

from importlib import import_module
from pathlib import Path
from typing import Any

from llmf_hydra.config.groups.evaluation import EvaluationConfig
from llmf_hydra.errors import Problem, Refused
from llmf_hydra.evaluation.tasks import LM_EVAL
from llmf_hydra.optional import require

KEY = "evaluation.task"


def evaluate(model: Any, tokenizer: Any, cfg: EvaluationConfig) -> dict[str, Any]:
    """What lm-eval returns for a task: `results` by task, and `samples` with each question. Raises Refused.

    A folder `evaluation.task_dir` with tasks of one's own (YAML files) is looked through beside those of the library.
    """
    name = str(cfg.task).removeprefix(LM_EVAL)
    require("lm_eval", extra="lm-eval", key=f"{KEY}={cfg.task}")
    evaluator: Any = import_module("lm_eval.evaluator")
    models: Any = import_module("lm_eval.models.huggingface")
    tasks: Any = import_module("lm_eval.tasks")
    names = name.split(",")
    manager = _manager(tasks.TaskManager, Path(cfg.task_dir).expanduser(), names)
    missing = [one for one in names if not manager.match_tasks([one])]
    if missing:
        what = f"lm-eval knows no task {missing[0]}"
        raise Refused([Problem(KEY, cfg.task, what, "`lm-eval ls tasks` lists them")])
    return evaluator.simple_evaluate(
        model=models.HFLM(pretrained=model, tokenizer=tokenizer, batch_size=cfg.batch_size),
        tasks=names,
        num_fewshot=cfg.n_shot,
        task_manager=manager,
        random_seed=cfg.seed,
        numpy_random_seed=cfg.seed,
        torch_random_seed=cfg.seed,
        fewshot_random_seed=cfg.seed,
        log_samples=True,
    )


def _manager(make: Any, own: Path, names: list[str]) -> Any:
    """The tasks of a folder of one's own, and beside them the library's, which take long to be listed, where needed."""
    given = str(own) if own.is_dir() else None
    if given is not None:
        alone = make(include_path=given, include_defaults=False)
        if all(alone.match_tasks([name]) for name in names):
            return alone
    return make(include_path=given)
