"""Rules of the optimizers that keep less state than AdamW."""

from collections.abc import Iterator

from llmf_hydra.checks.register import rule
from llmf_hydra.config.choices import LEARNING_JOBS, METHODS, OPTIMIZERS
from llmf_hydra.config.names import names
from llmf_hydra.config.schema import Config, entries, value_at
from llmf_hydra.errors import Problem

TARGETS = ("optimizer.apollo_target", "optimizer.galore_target")
LAYERWISE = ("optimizer.apollo_layerwise", "optimizer.galore_layerwise")
SWITCHED = "optimizer.badam_switch_interval"


@rule("optimizer.name", "method.name")
def whole_weights_are_trained(cfg: Config) -> Iterator[Problem]:
    """GaLore, APOLLO and BAdam save the state of whole weights: adapters are small already."""
    name, method = cfg.optimizer.name, cfg.method.name
    if OPTIMIZERS[name].whole and METHODS[method].adapters:
        what = f"trains whole weights with little state, and method={method} trains small adapters"
        yield Problem("optimizer.name", name, what, "choose method=full or method=freeze, or optimizer=adamw")


@rule(*TARGETS)
def projected_layers_are_named(cfg: Config) -> Iterator[Problem]:
    """Lists of linear layers hold names, separated by commas, and no name twice."""
    for key in TARGETS:
        named = names(value_at(cfg, key))
        if not named or "" in named:
            yield Problem(
                key, value_at(cfg, key), "holds an empty name", "write names separated by single commas"
            )
        elif len(set(named)) < len(named):
            yield Problem(key, value_at(cfg, key), "names a module twice")


@rule(
    *LAYERWISE,
    "training.max_grad_norm",
    "training.gradient_accumulation_steps",
    "launch.nproc_per_node",
    jobs=LEARNING_JOBS,
)
def layerwise_holds_no_whole_gradient(cfg: Config) -> Iterator[Problem]:
    """A layerwise optimizer frees each gradient within the backward pass: no clipping by the norm of all of them, no
    accumulation, one process."""
    key, training = cfg.optimizer.layerwise_key, cfg.training
    if key is None:
        return
    why = f"{key}=true frees each gradient as soon as it is there"
    if training.max_grad_norm > 0:
        what = f"clips by the norm of all gradients, and {why}"
        yield Problem("training.max_grad_norm", training.max_grad_norm, what, "set training.max_grad_norm=0")
    if training.gradient_accumulation_steps > 1:
        yield Problem("training.gradient_accumulation_steps", training.gradient_accumulation_steps,
                      f"adds gradients up over several passes, and {why}",
                      "set it to 1 and raise training.per_device_train_batch_size")  # fmt: skip
    if cfg.launch.nproc_per_node > 1:
        yield Problem("launch.nproc_per_node", cfg.launch.nproc_per_node,
                      f"averages gradients over the processes after the backward pass, and {why}",
                      f"set launch.nproc_per_node=1, or {key}=false")  # fmt: skip


@rule("optimizer.badam_mode", "launch.nproc_per_node", jobs=LEARNING_JOBS)
def blocks_take_turns_in_one_process(cfg: Config) -> Iterator[Problem]:
    """BAdam's layer mode changes which weights have gradients, which DistributedDataParallel doesn't follow."""
    count = cfg.launch.nproc_per_node
    if _takes_turns(cfg) and count > 1:
        what = "DistributedDataParallel doesn't follow optimizer=badam when it switches the block that has gradients"
        remedy = "set it to 1, or optimizer.badam_mode=ratio"
        yield Problem("launch.nproc_per_node", count, what, remedy)


@rule(
    "optimizer.badam_mode",
    "method.freeze_extra_modules",
    "model.train_from_scratch",
    "model.new_special_tokens",
)
def blocks_are_hidden_layers(cfg: Config) -> Iterator[Problem]:
    """BAdam's layer mode trains hidden layers and no modules outside them, which so can't start random or have rows
    for new tokens."""
    extra = cfg.method.freeze_extra_modules
    if _takes_turns(cfg) and cfg.model.train_from_scratch:
        what = "would leave the embeddings random: optimizer=badam trains the hidden layers alone"
        yield Problem(
            "model.train_from_scratch", True, what, "leave it out, or set optimizer.badam_mode=ratio"
        )
    if _takes_turns(cfg) and cfg.method.name == "freeze" and extra:
        what = "would not be trained: optimizer=badam trains hidden layers, one at a time"
        yield Problem(
            "method.freeze_extra_modules", extra, what, "leave it out, or set optimizer.badam_mode=ratio"
        )
    tokens = cfg.model.new_special_tokens
    if _takes_turns(cfg) and tokens:
        what = "would never be trained: optimizer=badam leaves the embeddings as they are"
        remedy = "leave it out, or set optimizer.badam_mode=ratio"
        yield Problem("model.new_special_tokens", tokens, what, remedy)


@rule(SWITCHED, "optimizer.badam_switch_mode", "optimizer.badam_mode")
def blocks_are_switched(cfg: Config) -> Iterator[Problem]:
    """BAdam switches after one step or more, -1 is never; a fixed block is never switched."""
    optimizer = cfg.optimizer
    interval = optimizer.badam_switch_interval
    if optimizer.name == "badam" and interval == 0:
        yield Problem(SWITCHED, 0, "would switch before any step", "give a number of steps, or -1 for never")
    elif (
        _takes_turns(cfg)
        and optimizer.badam_switch_mode in (None, "fixed")
        and interval not in (None, -1, entries()[SWITCHED].param.default)
    ):
        shown = optimizer.badam_switch_mode or "null"
        what = f"has no effect with optimizer.badam_switch_mode={shown}: the block stays"
        yield Problem(SWITCHED, interval, what, "leave it out")


def _takes_turns(cfg: Config) -> bool:
    return cfg.optimizer.name == "badam" and cfg.optimizer.badam_mode == "layer"
