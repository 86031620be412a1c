"""What a run's templates and datasets must be: names, files and first rows. Standard library only."""

import re
from collections.abc import Iterator
from pathlib import Path

from llmf_hydra.checks.register import CONFIG, DISK, rule
from llmf_hydra.config.schema import Config
from llmf_hydra.data.sources.resolve import check_sources, resolve
from llmf_hydra.errors import Problem, Refused

_TEMPLATES = Path(__file__).parent / "chat" / "templates"


@rule("data.template", "data.tool_format", phase=CONFIG)
def the_template_is_one_of_ours(cfg: Config) -> Iterator[Problem]:
    """data.template and data.tool_format name a template and a tool format that the package ships."""
    templates = sorted(path.stem for path in _TEMPLATES.glob("*.jinja"))
    written = (_TEMPLATES / "tool_formats.yaml").read_text(encoding="utf-8")
    tools = sorted(re.findall(r"^(\w+):", written, re.MULTILINE))
    for key, name, known in (
        ("data.template", cfg.data.template, templates),
        ("data.tool_format", cfg.data.tool_format, tools),
    ):
        if name and name not in known:
            yield Problem.bad_choice(key, name, known)


@rule("data.dataset", "data.eval_dataset", "data.dataset_dir", phase=DISK)
def the_datasets_fit(cfg: Config) -> Iterator[Problem]:
    """Datasets are rows of dataset_info.json, files or hub names, and their first rows fit the stage."""
    yield from check_sources(cfg.data, cfg.stage.rows)


@rule("data.dataset", "data.eval_dataset", jobs=("train", "check"), phase=DISK)
def only_text_is_trained_on(cfg: Config) -> Iterator[Problem]:
    """Images, videos and audio of a dataset are refused: no model that is trained here would see them."""
    for key, datasets in (("dataset", cfg.data.dataset), ("eval_dataset", cfg.data.eval_dataset)):
        try:
            found = resolve(cfg.data, datasets, key) if datasets else []
        except Refused:  # what is wrong with it is told by check_sources
            continue
        for source in found:
            if source.media:
                what = f"has {' and '.join(source.media)}, and only text is trained on"
                remedy = f"take the {' and '.join(source.media)} out of its columns in dataset_info.json"
                yield Problem(f"data.{key}", source.name, what, remedy)
