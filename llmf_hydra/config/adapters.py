"""The adapters of `model.adapter_name_or_path`: which are merged into the model, and which one is trained on."""

from collections.abc import Iterator

from llmf_hydra.config.names import names
from llmf_hydra.config.schema import Config, entries, value_at
from llmf_hydra.errors import Problem

KEY = "model.adapter_name_or_path"
# What a saved adapter says itself.
OF_A_NEW_ONE = tuple(
    f"method.{name}"
    for name in ("lora_rank", "lora_alpha", "lora_dropout", "lora_target", "additional_target", "use_rslora",
                 "use_dora")
)  # fmt: skip


def trained_on(cfg: Config) -> str | None:
    """The saved adapter that the run trains on: the last one given, unless a new one is put on top of them all."""
    given = names(cfg.model.adapter_name_or_path)
    return given[-1] if given and not cfg.method.create_new_adapter else None


def merged(cfg: Config) -> list[str]:
    """The saved adapters that become part of the weights, in their order."""
    given = names(cfg.model.adapter_name_or_path)
    return given[: -1 if trained_on(cfg) else None]


def without_effect(cfg: Config) -> Iterator[Problem]:
    """What the user said of a new adapter, in a run that trains a saved one on."""
    adapter = trained_on(cfg)
    if cfg.method.name != "lora" or adapter is None:
        return
    for key in OF_A_NEW_ONE:
        value = value_at(cfg, key)
        if value != entries()[key].param.default:
            what = f"has no effect: the adapter {adapter} is trained on as it is"
            yield Problem(key, value, what, "leave it out, or set method.create_new_adapter=true")
