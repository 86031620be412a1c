"""Rules of the methods: what is trained, and on which adapters."""

from collections.abc import Iterator

from llmf_hydra.checks.register import rule
from llmf_hydra.config.schema import Config, value_at
from llmf_hydra.errors import Problem


@rule("method.lora_alpha", "method.lora_rank")
def lora_has_effect(cfg: Config) -> Iterator[Problem]:
    """A LoRA scaling of 0 would train nothing."""
    if cfg.method.name == "lora" and cfg.method.alpha == 0:
        yield Problem(
            "method.lora_alpha",
            0,
            "scales the LoRA update by 0: nothing would be learned",
            "leave it out for 2 x lora_rank",
        )


@rule("method.lora_target", "method.additional_target")
def targets_are_named(cfg: Config) -> Iterator[Problem]:
    """Lists of modules hold names, separated by commas, and no module is named twice."""
    method = cfg.method
    for key, value in (
        ("method.lora_target", method.lora_target),
        ("method.additional_target", method.additional_target),
    ):
        names = [name.strip() for name in value.split(",")] if value is not None else []
        if any(not name for name in names):
            yield Problem(key, value, "holds an empty name", "write names separated by single commas")
        elif len(set(names)) < len(names):
            yield Problem(key, value, "names a module twice")


@rule("method.lora_target", "stage.name")
def head_takes_no_adapter(cfg: Config) -> Iterator[Problem]:
    """LoRA is not put on the output head, whose weight is read directly where only trained tokens are scored."""
    names = [name.strip() for name in cfg.method.lora_target.split(",")]
    if cfg.method.name == "lora" and "lm_head" in names and cfg.stage.info.token_logprobs:
        yield Problem("method.lora_target", cfg.method.lora_target, f"stage={cfg.stage.name} takes no LoRA on lm_head",
                      "train it whole: method.additional_target=lm_head")  # fmt: skip


@rule("method.freeze_trainable_layers", "method.freeze_extra_modules")
def freeze_trains_something(cfg: Config) -> Iterator[Problem]:
    """method=freeze trains some layer, or a module outside the layers."""
    method = cfg.method
    if method.name == "freeze" and method.freeze_trainable_layers == 0 and not method.freeze_extra_modules:
        yield Problem("method.freeze_trainable_layers", 0, "nothing would be trained",
                      "give a number of layers, or name method.freeze_extra_modules")  # fmt: skip


@rule("method.freeze_trainable_modules", "method.freeze_extra_modules")
def frozen_modules_are_named(cfg: Config) -> Iterator[Problem]:
    """Lists of modules hold names, separated by commas."""
    for key in ("method.freeze_trainable_modules", "method.freeze_extra_modules"):
        value = value_at(cfg, key)
        if value is not None and any(not name.strip() for name in value.split(",")):
            yield Problem(key, value, "holds an empty name", "write names separated by single commas")


@rule("model.adapter_name_or_path", "rlhf.ref_model_adapters", "rlhf.reward_model_adapters")
def adapters_are_named(cfg: Config) -> Iterator[Problem]:
    """Lists of adapters hold names, separated by commas."""
    for key in ("model.adapter_name_or_path", "rlhf.ref_model_adapters", "rlhf.reward_model_adapters"):
        value = value_at(cfg, key)
        if value is not None and any(not name.strip() for name in value.split(",")):
            yield Problem(key, value, "holds an empty name", "write names separated by single commas")


@rule("method.create_new_adapter", "model.adapter_name_or_path")
def new_adapter_is_put_on_others(cfg: Config) -> Iterator[Problem]:
    """method.create_new_adapter needs adapters to be put on."""
    if cfg.method.create_new_adapter and not cfg.model.adapter_name_or_path:
        what = "has no effect: without model.adapter_name_or_path the adapter is new anyway"
        yield Problem("method.create_new_adapter", True, what, "leave it out")
