"""Digests of the files of models and adapters. Without torch, and without the network."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from llmf_hydra.config.groups.model import EMBEDDED, TINY
from llmf_hydra.config.names import names
from llmf_hydra.config.schema import Config
from llmf_hydra.models.ref import locate
from llmf_hydra.runs.file_digests import Files, remembered
from llmf_hydra.runs.manifest import digest_of_text

# Weights, the model's and the tokenizer's settings, and code that comes with a model.
SUFFIXES = {".safetensors", ".bin", ".json", ".jinja", ".model", ".txt", ".py"}
WEIGHTS = ("*.safetensors",)
WEIGHT_FILES = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.gguf")
BUILT_IN = (TINY, EMBEDDED)
WRITTEN_BESIDE = {"training_args.bin", "trainer_state.json"}  # by a trainer, and read by no later run


def model_files(cfg: Config) -> dict[str, Files]:
    """Each model and adapter of a config, by the setting that names it: its folder, and its files with their SHA-256.

    A hub's model has those that lie in the hub's cache; none where it was never loaded.
    """
    return {key: _of(name, cfg) for key, name in _named(cfg)}


def starting_weights(cfg: Config) -> dict[str, str]:
    """Digest of the weight files of each model and adapter that a run starts from, by `setting: name`.

    Models that are built in are told by the package's code, and those that a hub's cache doesn't hold by nothing.
    """
    found: dict[str, str] = {}
    for key, name in _named(cfg, located=False):
        scratch = key == "model.model_name_or_path" and cfg.model.train_from_scratch
        if name in BUILT_IN or scratch:
            continue
        folder = _folder(name, cfg)
        digest = None if folder is None else weights_digest(str(folder), WEIGHT_FILES)
        if digest is not None:
            found[f"{key}={name}"] = digest
    return found


def weights_digest(name: str, patterns: Sequence[str] = WEIGHTS) -> str | None:
    """SHA-256 over names and contents of a folder's weight files; None for what isn't a folder."""
    folder = Path(name).expanduser()
    if not folder.is_dir():
        return None
    files = sorted(
        file for pattern in patterns for file in folder.glob(pattern) if file.name not in WRITTEN_BESIDE
    )
    return digest_of_text("\n".join(f"{file.name}:{remembered(file)}" for file in files))


def _named(cfg: Config, *, located: bool = True) -> Iterator[tuple[str, str]]:
    """The settings that name models, and what they name: of the run's own the folder if `located`, built if need be."""
    if name := cfg.model.model_name_or_path:
        yield "model.model_name_or_path", locate(cfg.model) if located else name
    rlhf = cfg.rlhf
    listed = rlhf.listed if cfg.stage.info.rollouts else []
    for key, given in (
        ("model.adapter_name_or_path", ",".join(cfg.model.adapters)),
        ("rlhf.ref_model", rlhf.ref_model),
        ("rlhf.ref_model_adapters", rlhf.ref_model_adapters),
        ("rlhf.reward_model", rlhf.reward_model if rlhf.reward_model_type != "api" else None),
        ("rlhf.reward_model_adapters", rlhf.reward_model_adapters),
        ("rlhf.rewards", ",".join(spec.argument for spec in listed if spec.kind == "model")),
    ):
        for number, name in enumerate(names(given), 1):
            yield key if number == 1 else f"{key} ({number})", name


def _of(name: str, cfg: Config) -> Files:
    folder = _folder(name, cfg) or Path(name).expanduser()
    held = sorted(folder.iterdir()) if folder.is_dir() else []
    files = [file for file in held if file.suffix in SUFFIXES and file.name not in WRITTEN_BESIDE]
    return {"path": str(folder), "files": {file.name: remembered(file) for file in files}}


def _folder(name: str, cfg: Config) -> Path | None:
    """Where the files of a model or an adapter lie; None for a hub's that was never loaded."""
    folder = Path(name).expanduser()
    return folder if folder.is_dir() else _snapshot(name, cfg)


def _snapshot(name: str, cfg: Config) -> Path | None:
    """The folder in the hub's cache that a hub's name stands for."""
    from huggingface_hub import try_to_load_from_cache

    for file in ("config.json", "adapter_config.json"):
        try:
            found = try_to_load_from_cache(name, file, cfg.model.cache_dir, cfg.model.model_revision)
        except ValueError:  # no name that a hub could have
            return None
        if isinstance(found, str):
            return Path(found).parent
    return None
