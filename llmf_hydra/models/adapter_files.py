"""A saved adapter by its files: whether it can be put on the run's model. Without torch."""

import json
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from llmf_hydra.checks.residual import residual_of
from llmf_hydra.errors import Problem
from llmf_hydra.models.identity import same_model
from llmf_hydra.runs.seal import is_whole_safetensors

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
DECOMPOSED = ("pissa", "olora", "corda")  # starts of LoRA for which PEFT would change the base when it loads
KINDS = ("LORA", "OFT")  # PEFT's names of the types that can be merged into a model here
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


def problems(key: str, name: str, within: str | None = None) -> Iterator[Problem]:
    """Why a folder cannot be taken as an adapter; hub names are looked up when the run begins. `within` is the folder
    at the name's end that belongs to no hub's name."""
    folder = Path(name).expanduser()
    if not names_a_folder(name):
        if not HUB_NAME.fullmatch(name.removesuffix(f"/{within}") if within else name):
            what = "is no folder that is there, and no owner/name on a hub"
            yield Problem(
                key, name, what, "name a folder with a saved adapter, or one on a hub as owner/name"
            )
        return
    if not folder.is_dir():
        yield Problem(key, name, "there is no such folder")
    elif read(folder / CONFIG) is None:
        yield Problem(key, name, f"the folder holds no {CONFIG}", "name a folder with a saved adapter")
    elif (weights := folder / WEIGHTS).is_file() and not is_whole_safetensors(weights):
        yield Problem(key, name, f"its {WEIGHTS} is cut off, or no safetensors", "copy or train it anew")


def problems_of_residuals(key: str, adapters: Sequence[str]) -> Iterator[Problem]:
    """An adapter for each that stands on a residual (PiSSA) and doesn't follow it in the list."""
    for number, name in enumerate(adapters):
        residual = residual_of(name)
        before = Path(adapters[number - 1]).expanduser() if number else None
        if residual is not None and (before is None or before.resolve() != residual.resolve()):
            what = "is a PiSSA adapter on the residual of its base, and the base isn't that"
            given = ",".join([*adapters[:number], f"{name.rstrip('/')}/{residual.name}", *adapters[number:]])
            yield Problem(key, name, what, f"give its residual before it: {key}='{given}'")


def problems_of_fit(
    key: str, name: str, model: str, *, scores: bool, kinds: Collection[str] = KINDS
) -> Iterator[Problem]:
    """Why an adapter cannot go on this model; `scores` says whether the model gives scores instead of text, `kinds`
    which of PEFT's types of adapters are taken."""
    known = read(Path(name).expanduser() / CONFIG)
    if known is None:
        return
    base, kind, task = known.get("base_model_name_or_path"), known.get("peft_type"), known.get("task_type")
    if kind not in kinds:
        wanted = " or ".join(kinds)
        methods = {"LORA": "lora", "OFT": "oft"}
        remedy = f"set method={methods[kind]}" if kind in methods else f"name an adapter of the type {wanted}"
        yield Problem(key, name, f"is an adapter of the type {kind}, where {wanted} is taken", remedy)
    if not same_model(str(base), model):
        what = f"is an adapter of {base}, and model.model_name_or_path={model} is another model"
        yield Problem(key, name, what, f"name its model, or correct base_model_name_or_path in its {CONFIG}")
    start = str(known.get("init_lora_weights")).lower()
    if start.startswith(DECOMPOSED):
        what = (
            f"was trained on a residual of its base (init_lora_weights={start}), which isn't saved beside it"
        )
        yield Problem(key, name, what, "convert it to a plain LoRA adapter, as PEFT does where it is saved")
    if task == "SEQ_CLS" and not scores:
        yield Problem(key, name, "is an adapter for scores (SEQ_CLS), and this stage trains a model of text",
                      "name an adapter of pt, sft, dpo, kto or ppo")  # fmt: skip


def names_a_folder(name: str) -> bool:
    """Whether a name is meant as a folder and not as one of a hub."""
    return name.startswith((".", "/", "~")) or Path(name).is_dir()


def read(file: Path) -> dict[str, Any] | None:
    """A JSON file; None where it isn't there or isn't one."""
    try:
        return json.loads(file.read_text(encoding="utf8"))
    except (OSError, ValueError):
        return None
