"""Rules of the stages and of which model is kept."""

from collections.abc import Iterator

from llmf_hydra.checks.register import rule
from llmf_hydra.config.groups.rlhf import REFERENCE_FREE
from llmf_hydra.config.groups.stage import GENERATED, METRICS
from llmf_hydra.config.schema import Config, entries, value_at
from llmf_hydra.errors import Problem, did_you_mean

REFERENCE_KEYS = ("rlhf.ref_model", "rlhf.ref_model_adapters", "rlhf.ref_model_quantization_bit")
GENERATION_KEYS = tuple(
    f"generation.{name}"
    for name in ("do_sample", "temperature", "top_p", "top_k", "max_length", "max_new_tokens", "repetition_penalty",
                 "skip_special_tokens")
)  # fmt: skip
TRAINING_JOBS = ("train", "check", "preview")


@rule("rlhf.pref_loss", *REFERENCE_KEYS)
def no_reference_where_none_is_used(cfg: Config) -> Iterator[Problem]:
    """The losses orpo and simpo use no reference model."""
    if cfg.stage.name == "dpo" and cfg.rlhf.pref_loss in REFERENCE_FREE:
        for key in REFERENCE_KEYS:
            value = value_at(cfg, key)
            if value is not None:
                what = f"rlhf.pref_loss={cfg.rlhf.pref_loss} uses no reference model"
                yield Problem(key, value, what, "leave it out, or choose another loss")


@rule("rlhf.ref_model_quantization_bit", "rlhf.ref_model_adapters", "model.adapter_name_or_path")
def reference_can_be_quantized(cfg: Config) -> Iterator[Problem]:
    """A reference model is quantized to 4 or 8 bits, and then takes one adapter at most."""
    rlhf = cfg.rlhf
    bits, key = rlhf.ref_model_quantization_bit, "rlhf.ref_model_adapters"
    if rlhf.ref_model is None and rlhf.ref_model_adapters is None:  # the start of the run is the reference
        key = "model.adapter_name_or_path"
    adapters = value_at(cfg, key)
    if bits is not None and bits not in (4, 8):
        yield Problem("rlhf.ref_model_quantization_bit", bits, "must be 4 or 8")
    elif bits is not None and adapters is not None and "," in adapters:
        what = "are several adapters, which cannot be merged into quantized weights"
        yield Problem(key, adapters, what, "merge them first, or leave the bits out")


@rule("stage.name", "training.per_device_train_batch_size", "training.gradient_accumulation_steps")
def kto_needs_two_rows(cfg: Config) -> Iterator[Problem]:
    """KTO estimates a divergence from the answers of other rows: an optimizer step needs two of them."""
    training = cfg.training
    if (
        cfg.stage.name == "kto"
        and training.per_device_train_batch_size * training.gradient_accumulation_steps < 2
    ):
        what = "with one row an optimizer step, stage=kto has no other row's answer to estimate its divergence by"
        yield Problem("training.per_device_train_batch_size", 1, what,
                      "take 2 or more, or training.gradient_accumulation_steps=2")  # fmt: skip


@rule("rlhf.kto_chosen_weight", "rlhf.kto_rejected_weight")
def kto_learns_from_something(cfg: Config) -> Iterator[Problem]:
    """One of KTO's two weights is above 0."""
    rlhf = cfg.rlhf
    if cfg.stage.name == "kto" and rlhf.kto_chosen_weight == 0 and rlhf.kto_rejected_weight == 0:
        yield Problem("rlhf.kto_chosen_weight", 0, "with rlhf.kto_rejected_weight=0: nothing would be learned",
                      "let one of them be above 0")  # fmt: skip


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


@rule("method.lora_target", "stage.name")
def head_takes_no_adapter(cfg: Config) -> Iterator[Problem]:
    """LoRA is not put on the output head, whose weight is read directly where only trained tokens are scored."""
    names = [name.strip() for name in cfg.method.lora_target.split(",")]
    if cfg.method.name == "lora" and "lm_head" in names and cfg.stage.name in ("pt", "sft", "dpo", "kto"):
        yield Problem("method.lora_target", cfg.method.lora_target, f"stage={cfg.stage.name} takes no LoRA on lm_head",
                      "train it whole: method.additional_target=lm_head")  # fmt: skip


@rule(
    "training.load_best_model_at_end", "training.save_strategy", "training.save_steps", "training.eval_steps"
)
def best_model_is_saved(cfg: Config) -> Iterator[Problem]:
    """To keep the best model, each evaluation that may be the best needs a checkpoint."""
    training = cfg.training
    if not training.load_best_model_at_end or not training.evaluates:
        return
    if training.save_strategy != training.eval_strategy:
        what = f"needs a checkpoint at each evaluation (training.eval_strategy={training.eval_strategy})"
        yield Problem("training.load_best_model_at_end", True, what,
                      f"set training.save_strategy={training.eval_strategy}")  # fmt: skip
    elif training.save_strategy == "steps":
        every = training.eval_steps or training.logging_steps
        if training.save_steps % every:
            yield Problem("training.save_steps", training.save_steps,
                          f"is no multiple of the {every} steps between evaluations, so the best may not be saved",
                          f"set training.save_steps={every}")  # fmt: skip


@rule("training.metric_for_best_model", "training.greater_is_better")
def best_model_is_asked_for(cfg: Config) -> Iterator[Problem]:
    """Which model is better matters to load_best_model_at_end and early_stopping_patience alone."""
    training = cfg.training
    if training.load_best_model_at_end or training.early_stopping_patience is not None:
        return
    for key in ("training.metric_for_best_model", "training.greater_is_better"):
        value = value_at(cfg, key)
        if value is not None:
            remedy = "set training.load_best_model_at_end=true or training.early_stopping_patience"
            yield Problem(key, value, "has no effect: nothing asks for the best model", remedy)


@rule("training.metric_for_best_model", "tracking.objective", "data.eval_on_each_dataset")
def best_metric_is_logged(cfg: Config) -> Iterator[Problem]:
    """The metric that decides is one that the evaluation of the stage logs."""
    training = cfg.training
    known = _metrics(cfg)
    asked = training.load_best_model_at_end or training.early_stopping_patience is not None
    if not (asked and training.evaluates and known):
        return
    metric = training.best_metric(cfg.tracking.objective)
    if metric.removeprefix("eval_") not in known:
        key = "tracking.objective" if not training.metric_for_best_model and cfg.tracking.objective else ""
        nearest = did_you_mean(metric, [f"eval_{name}" for name in known])
        yield Problem(key or "training.metric_for_best_model", metric, f"stage={cfg.stage.name} logs no such metric",
                      nearest or f"logged are {', '.join(f'eval_{name}' for name in known)}")  # fmt: skip


@rule("training.predict_with_generate", *GENERATION_KEYS)
def generation_is_used(cfg: Config) -> Iterator[Problem]:
    """In stage=sft the group generation acts only with training.predict_with_generate."""
    if cfg.stage.name != "sft" or cfg.training.predict_with_generate or cfg.job.name not in TRAINING_JOBS:
        return
    for key in GENERATION_KEYS:
        value = value_at(cfg, key)
        if value != entries()[key].param.default:
            yield Problem(key, value, "has no effect: stage=sft generates nothing",
                          "set training.predict_with_generate=true, or leave it out")  # fmt: skip


@rule("training.predict_with_generate", "data.train_on_prompt")
def answers_are_apart(cfg: Config) -> Iterator[Problem]:
    """To answer a held-out prompt, it must be known where the prompt ends: not where it is trained too."""
    if cfg.training.predict_with_generate and cfg.data.train_on_prompt:
        yield Problem(
            "training.predict_with_generate",
            True,
            "contradicts data.train_on_prompt=true",
            "give one of them",
        )


def _metrics(cfg: Config) -> list[str]:
    """What an evaluation logs, without the prefix eval_; with a dataset's name before it where each has its own."""
    training = cfg.training
    absent = {
        *(() if training.compute_accuracy or cfg.stage.name == "rm" else ("accuracy",)),
        *(() if training.predict_with_generate else GENERATED),
    }
    names = [name for name in METRICS[cfg.stage.name] if name not in absent]
    data = cfg.data
    if not data.eval_on_each_dataset:
        return names
    datasets = [name.strip() for name in (data.eval_dataset or data.dataset or "").split(",")]
    return [f"{dataset}_{name}" for dataset in datasets for name in names]


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
