"""What `stage=ppo` needs of the reward and its files. Looked at before anything loads, without torch."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmf_hydra import optional
from llmf_hydra.config.model import EMBEDDED, TINY
from llmf_hydra.config.schema import Config
from llmf_hydra.errors import NO_VALUE, Problem

KEY = "rlhf.reward_model"
BUILT_IN = {TINY: "tiny-v", EMBEDDED: "smollm2-135m-instruct-v"}  # how their folders in the cache are named


def problems(cfg: Config) -> Iterator[Problem]:
    """Files that aren't what the type of reward needs, and a package that is missing."""
    rlhf = cfg.rlhf
    if cfg.stage.name != "ppo" or rlhf.reward_model is None or rlhf.reward_model_type == "api":
        return
    if rlhf.reward_model_quantization_bit is not None:
        package = optional.missing("bitsandbytes", extra="bnb", key="rlhf.reward_model_quantization_bit")
        yield from [package] if package is not None else []
    folder = Path(rlhf.reward_model).expanduser()
    if folder.is_dir():
        yield from _adapter(cfg, folder) if rlhf.reward_model_type == "lora" else _model(cfg, folder)
    elif rlhf.reward_model.startswith((".", "/", "~")):
        yield Problem(KEY, rlhf.reward_model, "there is no such folder")


def same_model(base: str, model: str) -> bool:
    """Whether two names are of one model: the same name or folder, or folders of one name (one has moved)."""
    if base == model or Path(base).expanduser().resolve() == Path(model).expanduser().resolve():
        return True
    if model in BUILT_IN:
        return Path(base).name.startswith(BUILT_IN[model])
    return Path(base).name == Path(model).name


def _adapter(cfg: Config, folder: Path) -> Iterator[Problem]:
    known, model = _read(folder / "adapter_config.json"), str(cfg.model.model_name_or_path)
    if known is None:
        whole = (folder / "config.json").exists()
        remedy = (
            "set rlhf.reward_model_type=full"
            if whole
            else "name a folder that stage=rm method=lora has written"
        )
        yield Problem(KEY, cfg.rlhf.reward_model, "the folder holds no adapter_config.json", remedy)
        return
    base = str(known.get("base_model_name_or_path"))
    if not same_model(base, model):
        yield Problem(
            KEY,
            cfg.rlhf.reward_model,
            f"is an adapter of {base}, and model.model_name_or_path={model} is another model",
            "train the reward on this model, or merge it into its own and set rlhf.reward_model_type=full",
        )
    if known.get("task_type") != "SEQ_CLS":
        task = known.get("task_type")
        yield Problem(
            KEY,
            cfg.rlhf.reward_model,
            f"is an adapter for {task}, not for scores (SEQ_CLS)",
            "name a folder that stage=rm method=lora has written",
        )


def _model(cfg: Config, folder: Path) -> Iterator[Problem]:
    known = _read(folder / "config.json")
    if known is None:
        adapter = (folder / "adapter_config.json").exists()
        remedy = "set rlhf.reward_model_type=lora" if adapter else "name a folder that save_pretrained wrote"
        yield Problem(KEY, cfg.rlhf.reward_model, "the folder holds no config.json", remedy)
    elif not cfg.rlhf.reward_model_adapters and not _scores(known):
        kind = ", ".join(known.get("architectures") or ["model"])
        yield Problem(
            KEY,
            cfg.rlhf.reward_model,
            f"is a {kind}, which gives no score",
            "name a model that stage=rm has written",
        )
    for name in (cfg.rlhf.reward_model_adapters or "").split(","):
        if (
            name.strip().startswith((".", "/", "~"))
            and _read(Path(name.strip()).expanduser() / "adapter_config.json") is None
        ):
            yield Problem(
                "rlhf.reward_model_adapters", NO_VALUE, f"{name.strip()} holds no adapter_config.json"
            )


def _scores(config: dict[str, Any]) -> bool:
    return any(name.endswith("SequenceClassification") for name in config.get("architectures") or [])


def _read(file: Path) -> dict[str, Any] | None:
    try:
        return json.loads(file.read_text(encoding="utf8"))
    except (OSError, ValueError):
        return None
