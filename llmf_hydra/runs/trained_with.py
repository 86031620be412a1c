"""What a checkpoint was trained with: a run goes on from it exactly only where all of that is the same."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llmf_hydra.config.schema import Config, value_at
from llmf_hydra.errors import NO_VALUE, Problem, shown
from llmf_hydra.runs import seal

# What decides which rows an optimizer step trains, and what its state belongs to.
KEYS = (
    "stage.name",
    "method.name",
    "optimizer.name",
    "optimizer.apollo_target",
    "optimizer.apollo_rank",
    "optimizer.apollo_proj",
    "optimizer.apollo_proj_type",
    "optimizer.badam_mode",
    "optimizer.badam_start_block",
    "optimizer.badam_switch_mode",
    "optimizer.badam_switch_interval",
    "optimizer.badam_update_ratio",
    "optimizer.badam_mask_mode",
    "optimizer.galore_target",
    "optimizer.galore_rank",
    "optimizer.galore_proj_type",
    "quantization.quantization_bit",
    "quantization.quantization_method",
    "launch.nproc_per_node",
    "method.loraplus_lr_ratio",
    "method.loraplus_lr_embedding",
    "method.pissa_init",
    "training.per_device_train_batch_size",
    "training.gradient_accumulation_steps",
    "training.seed",
    "training.data_seed",
    "training.disable_shuffling",
    "rlhf.ppo_buffer_size",
    "rlhf.ppo_epochs",
)
RECORD, DATA, WEIGHTS = "trained_with", "data", "weights"


def record(cfg: Config, data: str, weights: Mapping[str, str]) -> dict[str, Any]:
    """For the seal: the values, the digest of the rows ("" where it isn't known), those of the weights by model."""
    return {RECORD: {**{key: value_at(cfg, key) for key in KEYS}, DATA: data, WEIGHTS: dict(weights)}}


def config_problems(folder: Path, cfg: Config) -> Iterator[Problem]:
    """A problem for each value that differs from the one that the checkpoint was trained with."""
    recorded: dict[str, Any] = seal.read(folder).get(RECORD, {})
    for key in KEYS:
        now = value_at(cfg, key)
        if key in recorded and recorded[key] != now:
            what = f"{folder} was trained with {shown(recorded[key])}, which a resumed run must keep"
            yield Problem(key, now, what, f"set {key}={shown(recorded[key])}")


def data_problem(folder: Path, digest: str) -> Problem | None:
    """The problem where the rows are not those that the checkpoint was trained on."""
    before: str = seal.read(folder).get(RECORD, {}).get(DATA, "")
    if not before or not digest or before == digest:
        return None
    what = (
        f"the data has changed since {folder} was trained: "
        f"the digest of its rows was {before[:12]} and is {digest[:12]}"
    )
    return Problem(
        "data.dataset", NO_VALUE, what, "bring back the files and settings of the data, or begin a new run"
    )


def weights_problem(folder: Path, weights: Mapping[str, str]) -> Problem | None:
    """The problem where the weights that the run started from have changed; `weights` are their digests by model."""
    before: dict[str, str] = seal.read(folder).get(RECORD, {}).get(WEIGHTS, {})
    for named, digest in weights.items():
        if before.get(named, digest) != digest:
            key, _, name = named.partition("=")
            what = (
                f"its weights have changed since {folder} was trained on them: "
                f"their digest was {before[named][:12]} and is {digest[:12]}"
            )
            return Problem(key, name, what, "bring them back, or begin a new run")
    return None
