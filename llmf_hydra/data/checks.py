"""What a run's templates and datasets must be: names, files and first rows. Torch-free."""

from collections.abc import Iterator
from pathlib import Path

from llmf_hydra.checks.register import CONFIG, DISK, rule
from llmf_hydra.config.choices import LEARNING_JOBS, MODEL_JOBS, TRAINING_JOBS
from llmf_hydra.config.schema import Config, entries, value_at
from llmf_hydra.data.cache import tokenized_folder
from llmf_hydra.data.chat.index import index, tool_formats
from llmf_hydra.data.sources.resolve import check_sources, media_problem, resolved
from llmf_hydra.errors import Problem


@rule("data.template", "data.tool_format", jobs=MODEL_JOBS, phase=CONFIG)
def the_template_is_one_of_ours(cfg: Config) -> Iterator[Problem]:
    """data.template and data.tool_format name a template and a tool format that the package ships."""
    for key, name, names in (
        ("data.template", cfg.data.template, index),
        ("data.tool_format", cfg.data.tool_format, tool_formats),
    ):
        if name and name not in (known := sorted(names())):
            yield Problem.bad_choice(key, name, known)


@rule("data.dataset", "data.eval_dataset", "data.dataset_dir", phase=DISK)
def the_datasets_fit(cfg: Config) -> Iterator[Problem]:
    """Datasets are rows of dataset_info.json, files or hub names, and their first rows fit the stage."""
    yield from check_sources(cfg.data, cfg.stage.rows)


@rule("data.dataset", "data.eval_dataset", "data.dataset_dir", jobs=("predict",), phase=DISK)
def the_rows_hold_prompts(cfg: Config) -> Iterator[Problem]:
    """job=predict reads rows with prompts, for a model of stage=pt plain texts."""
    yield from check_sources(cfg.data, "text" if cfg.stage.rows == "text" else "prompt")


@rule("data.dataset_dir", "data.media_dir", jobs=(*TRAINING_JOBS, "predict"), phase=DISK)
def the_folders_are_there(cfg: Config) -> Iterator[Problem]:
    """data.dataset_dir and data.media_dir name folders that exist."""
    for key in ("data.dataset_dir", "data.media_dir"):
        folder = value_at(cfg, key)
        given = isinstance(folder, str) and folder != entries()[key].param.default
        if given and not Path(folder).expanduser().is_dir():
            yield Problem(key, folder, "there is no such folder", "name one that exists, or leave it out")


@rule("data.tokenized_path", jobs=LEARNING_JOBS, phase=DISK)
def the_tokenized_folder_is_ours(cfg: Config) -> Iterator[Problem]:
    """data.tokenized_path is a folder that a run has saved tokenized data in, or a new one."""
    if cfg.data.tokenized_path:
        problem = tokenized_folder.problem(Path(cfg.data.tokenized_path).expanduser())
        yield from [problem] if problem else []


@rule("data.dataset", "data.eval_dataset", jobs=LEARNING_JOBS, phase=DISK)
def only_text_is_trained_on(cfg: Config) -> Iterator[Problem]:
    """Images, videos and audio of a dataset are refused: no model that is trained here would see them."""
    for key, datasets in (("dataset", cfg.data.dataset), ("eval_dataset", cfg.data.eval_dataset)):
        for source, problems in resolved(cfg.data, datasets, f"data.{key}") if datasets else ():
            if not problems and (problem := media_problem(source, f"data.{key}")):
                yield problem
