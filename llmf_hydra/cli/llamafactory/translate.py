"""A flat LLaMA-Factory name and value, translated: carried, renamed, of no meaning here, or missing."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from llmf_hydra.cli.llamafactory.trainer_names import TRAINER_NAMES
from llmf_hydra.config.schema import GROUPS, Entry, entries
from llmf_hydra.config.spec import ANY, Place, rows, rows_named
from llmf_hydra.config.switches import number_for_switch
from llmf_hydra.data.chat.index import template_names
from llmf_hydra.errors import Problem, Refused, did_you_mean

CARRIED, RENAMED, IDLE = "carried", "renamed", "without meaning here"
MISSING = "changes the result and is missing"
FATES = (CARRIED, RENAMED, IDLE, MISSING)
Flat = Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What became of one key: its fate, the words for it, and what it sets here.

    `settings` holds values by full key (`rlhf.pref_beta`) and choices by group (`stage`).
    """

    name: str
    fate: str
    told: str
    settings: Mapping[str, object] = field(default_factory=dict)


def translate(name: str, raw: object, flat: Flat) -> Outcome:
    """Translate one key of the flat file; raises Refused if its value is invalid."""
    if name in TRANSLATORS:
        return TRANSLATORS[name](name, raw, flat)
    homes = _homes(name)
    if not homes:
        return _homeless(name, raw)
    home = _right_home(homes, flat)
    if home.choice is not None:
        return _choice(name, raw, home)
    if home.entry.param.secret and raw is not None:
        given = home.entry.param.env or f"{home}=..."
        return Outcome(name, IDLE, f"a secret is never written to a file; set {given} when you start the run")
    return _set(name, home.entry, raw)


def coerce(entry: Entry, raw: object) -> object:
    """The value in the parameter's own type (YAML leaves `1e-4` a text); Refused if invalid."""
    if isinstance(raw, list) and str in _types(entry):
        raw = ",".join(map(str, raw))  # their lists of names are ours with commas
    if raw is False and "no" in entry.param.choices:
        raw = "no"  # YAML reads a bare `no` as false
    number = number_for_switch(entry, raw)
    if number is not None:
        raise Refused([number])
    try:
        typed = OmegaConf.structured(GROUPS[entry.group])
        typed[entry.name] = raw
        value = OmegaConf.to_container(typed)[entry.name]  # type: ignore[index,call-overload]  # a mapping
    except OmegaConfBaseException as error:
        remedy = f"it must be {entry.param.bounds}" if entry.param.bounds else ""
        raise Refused([Problem(entry.key, raw, f"is not of type {entry.type_name}", remedy)]) from error
    problem = entry.param.problem(entry.key, value)
    if problem is not None:
        raise Refused([problem])
    return value


def _types(entry: Entry) -> tuple[object, ...]:
    return (entry.type, *getattr(entry.type, "__args__", ()))


def _homes(name: str) -> list[Place]:
    """Where the name lives: as a row of the specification, and as a name of the trainer."""
    homes = [row.place for row in rows_named(name)]
    fate = TRAINER_NAMES.get(name)
    if fate is not None and fate.key and fate.key not in [home.key for home in homes]:
        homes.append(Place(fate.key))
    return homes


def _right_home(homes: list[Place], flat: Flat) -> Place:
    """`seed` means the evaluation's in a file that evaluates, and the training's in any other."""
    evaluates = "task" in flat
    return min(homes, key=lambda home: (home.entry.group == "evaluation") != evaluates)


def _homeless(name: str, raw: object) -> Outcome:
    fate = TRAINER_NAMES.get(name)
    if fate is None:  # it may be a new one of theirs, so nobody can say that it is of no consequence
        hint = did_you_mean(name, [*(row.name for row in rows()), *TRAINER_NAMES])
        return Outcome(name, MISSING, f"no known name; {hint}" if hint else "no known name")
    if fate.missing and not fate.changes_result(raw):
        return Outcome(name, IDLE, "so it is here")
    return Outcome(name, MISSING if fate.missing else IDLE, fate.why)


def _choice(name: str, raw: object, home: Place) -> Outcome:
    group = home.entry.group
    if home.choice == ANY:
        return _chosen(name, group, coerce(home.entry, raw))
    if _flag(name, raw):
        return _chosen(name, group, home.choice)
    return Outcome(name, RENAMED, f"nothing to write: {group}={home.choice} is not chosen")


def _chosen(name: str, group: str, choice: object) -> Outcome:
    return Outcome(name, CARRIED if name == group else RENAMED, f"{group}={choice}", {group: choice})


def _set(name: str, entry: Entry, raw: object) -> Outcome:
    fate = CARRIED if name == entry.name else RENAMED
    return Outcome(name, fate, entry.key, {entry.key: coerce(entry, raw)})


def _flag(name: str, raw: object) -> bool:
    if isinstance(raw, bool):
        return raw
    if isinstance(raw, int | float):
        raise Refused([Problem(name, raw, "is not of type bool", "write true or false")])
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False, "none": False}
    value = words.get(str(raw).lower())
    if value is None:
        raise Refused([Problem(name, raw, "is not of type bool", "write true or false")])
    return value


def _do_train(name: str, raw: object, flat: Flat) -> Outcome:
    return (
        _chosen(name, "job", "train")
        if _flag(name, raw)
        else Outcome(name, RENAMED, "nothing to write: no job=train")
    )


def _do_predict(name: str, raw: object, flat: Flat) -> Outcome:
    if not _flag(name, raw):
        return Outcome(name, RENAMED, "nothing to write: no job=predict")
    if flat.get("do_train"):
        return Outcome(name, IDLE, "one run does one job: train first, then start another with job=predict")
    return _chosen(name, "job", "predict")


# Other names of what model.flash_attn chooses, of theirs and of Transformers.
ATTENTION = {"flash_attention2": "fa2", "flash_attention_2": "fa2", "eager": "disabled"}
OPTIMIZERS = {
    "adamw": "adamw_torch adamw_torch_fused adamw_hf adamw_torch_xla adamw_torch_npu_fused paged_adamw_32bit",
    "adafactor": "adafactor",
    "sgd": "sgd",
    "galore": "galore_adamw galore_adamw_layerwise",
    "apollo": "apollo_adamw apollo_adamw_layerwise",
}


def _optim(name: str, raw: object, flat: Flat) -> Outcome:
    chosen = next((ours for ours, theirs in OPTIMIZERS.items() if raw in theirs.split()), None)
    if str(raw).endswith("8bit"):
        told = f"there is no {raw}: optimizer=adamw has its state in the weights' type, adam_mini and galore keep less"
        return Outcome(name, MISSING, told)
    if chosen is None:
        return Outcome(name, MISSING, f"there is no optimizer {raw}; --help optimizer lists those there are")
    if chosen == "adamw":  # their default, which use_galore and the like replace
        return Outcome(name, RENAMED, "nothing to write: optimizer=adamw is the default")
    layerwise = {f"optimizer.{chosen}_layerwise": True} if str(raw).endswith("_layerwise") else {}
    return Outcome(name, RENAMED, f"optimizer={chosen}", {"optimizer": chosen, **layerwise})


def _use_muon(name: str, raw: object, flat: Flat) -> Outcome:
    return _choice(name, raw, Place("optimizer.name", "muon"))


def _report_to(name: str, raw: object, flat: Flat) -> Outcome:
    words = raw if isinstance(raw, list) else str(raw or "none").split(",")
    asked = [str(word).strip() for word in words]
    known = [word for word in asked if word in ("wandb", "mlflow", "tensorboard")]
    other = [word for word in asked if word not in (*known, "none")]
    missing = f"no tracker {', '.join(other)}: the run's own files are always written" if other else ""
    if not known:
        return Outcome(
            name,
            IDLE if other else RENAMED,
            missing or "nothing to write: tracking=[files] is the default",
        )
    chosen = ["files", *known]
    told = f"tracking=[{','.join(chosen)}]" + (f"; {missing}" if missing else "")
    return Outcome(name, RENAMED, told, {"tracking": chosen})


def _gradient_checkpointing(name: str, raw: object, flat: Flat) -> Outcome:
    off = not _flag(name, raw)
    return Outcome(
        name, RENAMED, "model.disable_gradient_checkpointing", {"model.disable_gradient_checkpointing": off}
    )


def _warmup_steps(name: str, raw: object, flat: Flat) -> Outcome:
    share = isinstance(raw, float) and 0 < raw < 1  # Transformers 5 takes a share here
    return _set(name, entries()["training.warmup_ratio" if share else "training.warmup_steps"], raw)


def _neftune(name: str, raw: object, flat: Flat) -> Outcome:
    off = raw in (0, "0")  # their web page writes 0 for none
    return _set(name, entries()["training.neftune_noise_alpha"], None if off else raw)


def _packing(name: str, raw: object, flat: Flat) -> Outcome:
    entry = entries()["data.packing"]
    if coerce(entry, raw) is False and flat.get("stage") != "pt":
        return Outcome(name, RENAMED, "nothing to write: null, the default, packs only in stage=pt")
    return _set(name, entry, raw)


def _template(name: str, raw: object, flat: Flat) -> Outcome:
    if raw is None or raw in template_names():
        return _set(name, entries()["data.template"], raw)
    if _has_template(str(flat.get("model_name_or_path") or "")):
        told = f"data.template=null: there is no template {raw}, so the tokenizer's own is used"
        return Outcome(name, RENAMED, told, {"data.template": None})
    hint = did_you_mean(str(raw), template_names())
    told = f"there is no template {raw}; leave it out if the tokenizer's own will do"
    return Outcome(name, MISSING, f"{told}; {hint}" if hint else told)


def _has_template(model: str) -> bool:
    """Whether a model in a folder brings a chat template of its own; of a hub's model that isn't known here."""
    folder = Path(model).expanduser()
    if not model or not folder.is_dir():
        return False
    config = folder / "tokenizer_config.json"
    in_config = config.is_file() and "chat_template" in json.loads(config.read_text(encoding="utf8"))
    return in_config or (folder / "chat_template.jinja").is_file()


def _flash_attn(name: str, raw: object, flat: Flat) -> Outcome:
    entry, value = entries()["model.flash_attn"], ATTENTION.get(str(raw), raw)
    if value == raw:
        return _set(name, entry, raw)
    return Outcome(name, RENAMED, f"model.flash_attn={value}, as {raw} is called here", {entry.key: value})


def _quantization_bit(name: str, raw: object, flat: Flat) -> Outcome:
    bits = coerce(entries()["quantization.quantization_bit"], raw)
    if bits in (4, 8) and flat.get("quantization_method", "bnb") in ("bnb", "bitsandbytes"):
        return _chosen(name, "quantization", f"bnb{bits}")
    return _set(name, entries()["quantization.quantization_bit"], bits)


TRANSLATORS: Mapping[str, Callable[[str, object, Flat], Outcome]] = {
    "do_train": _do_train,
    "do_predict": _do_predict,
    "optim": _optim,
    "use_muon": _use_muon,
    "report_to": _report_to,
    "gradient_checkpointing": _gradient_checkpointing,
    "warmup_steps": _warmup_steps,
    "neftune_noise_alpha": _neftune,
    "packing": _packing,
    "template": _template,
    "quantization_bit": _quantization_bit,
    "flash_attn": _flash_attn,
}
