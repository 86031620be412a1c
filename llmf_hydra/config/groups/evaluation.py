"""Group `evaluation`: multiple-choice benchmarks (spec table evaluation)."""

from dataclasses import dataclass

from llmf_hydra.config.param import param


@dataclass
class EvaluationConfig:
    task: str | None = param(
        None,
        "Benchmark and split; eval_validation is an alias of ceval_validation.",
        choices=("mmlu_test", "ceval_validation", "eval_validation", "cmmlu_test"),
        jobs=("evaluate",),
        planned=True,
    )
    task_dir: str = param("evaluation", "Folder with the benchmark data.", jobs=("evaluate",), planned=True)
    batch_size: int = param(4, "Batch size per device.", ge=1, jobs=("evaluate",), planned=True)
    seed: int = param(42, "Seed of the data loader.", jobs=("evaluate",), planned=True)
    lang: str = param("en", "Language of the prompt.", choices=("en", "zh"), jobs=("evaluate",), planned=True)
    n_shot: int = param(5, "Number of few-shot examples.", ge=0, jobs=("evaluate",), planned=True)
    save_dir: str | None = param(
        None, "Folder for the results; must not exist yet.", jobs=("evaluate",), planned=True
    )
    download_mode: str = param(
        "reuse_dataset_if_exists",
        "Download mode of the datasets library.",
        choices=("reuse_dataset_if_exists", "reuse_cache_if_exists", "force_redownload"),
        jobs=("evaluate",),
        planned=True,
    )
