"""Tasks of lm-eval (EleutherAI's harness) on the loaded model: `evaluation.task=lm_eval:hellaswag`."""

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
    from lm_eval import simple_evaluate  # pyright: ignore[reportMissingImports]
    from lm_eval.models.huggingface import HFLM  # pyright: ignore[reportMissingImports]
    from lm_eval.tasks import TaskManager  # pyright: ignore[reportMissingImports]

    own = Path(cfg.task_dir).expanduser()
    manager: Any = TaskManager(include_path=str(own) if own.is_dir() else None)
    missing = [one for one in name.split(",") if not manager.match_tasks([one])]
    if missing:
        what = f"lm-eval knows no task {missing[0]}"
        raise Refused([Problem(KEY, cfg.task, what, "`lm-eval ls tasks` lists them")])
    return simple_evaluate(
        model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=cfg.batch_size),
        tasks=name.split(","),
        num_fewshot=cfg.n_shot,
        task_manager=manager,
        random_seed=cfg.seed,
        numpy_random_seed=cfg.seed,
        torch_random_seed=cfg.seed,
        fewshot_random_seed=cfg.seed,
        log_samples=True,
    )
