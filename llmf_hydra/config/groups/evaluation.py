"""Group `evaluation`: multiple-choice benchmarks (spec table evaluation)."""

from dataclasses import dataclass

from llmf_hydra.config.param import param

JOBS = ("evaluate",)


@dataclass
class EvaluationConfig:
    task: str | None = param(
        None,
        "Benchmark and split: mmlu_test, ceval_validation (alias eval_validation) or cmmlu_test; or a task of lm-eval "
        "as lm_eval:NAME.",
        jobs=JOBS,
    )
    task_dir: str = param(
        "evaluation",
        "Folder with the benchmark's files, or a dataset on the hub as owner/name; for lm_eval:NAME a folder with "
        "tasks of your own.",
        jobs=JOBS,
    )
    batch_size: int = param(4, "Questions per forward pass.", ge=1, jobs=JOBS)
    seed: int = param(42, "Seed by which the few-shot examples are drawn.", jobs=JOBS)
    lang: str = param("en", "Language of the prompt.", choices=("en", "zh"), jobs=JOBS)
    n_shot: int = param(5, "Number of few-shot examples.", ge=0, jobs=JOBS)
    save_dir: str | None = param(None, "Folder for a copy of the results; must not exist yet.", jobs=JOBS)
    download_mode: str = param(
        "reuse_dataset_if_exists",
        "What the datasets library keeps of an earlier download, where task_dir is a dataset of its kind.",
        choices=("reuse_dataset_if_exists", "reuse_cache_if_exists", "force_redownload"),
        jobs=JOBS,
    )
