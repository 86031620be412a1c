"""`training.activation_memory`: how many layers are checkpointed for a step's activations to take no more."""

import logging
from typing import NamedTuple

from llmf_hydra.errors import Problem, Refused
from llmf_hydra.models.memory.step import Growth

log = logging.getLogger(__name__)
KEY = "training.activation_memory"
FREE = -1  # its value for what the machine has free
MIB = 2**20
SPARED = 0.1  # share of the free memory that an estimate may be wrong by


class Chosen(NamedTuple):
    """What is checkpointed, and what the pass then takes."""

    layers: int
    activations: int  # bytes


def checkpointed(plain: Growth, whole: Growth, asked: int, free: int) -> Chosen:
    """The first layers that are to be checkpointed, as few as `asked`, in MiB, allows.

    `plain` is a pass that keeps all activations, `whole` one that checkpoints every layer; `free` are the bytes that
    there are for either. Raises Refused where no number of them takes as little as was asked for.
    """
    most = max(0, int((1 - SPARED) * free)) if asked == FREE else asked * MIB
    ways = [Chosen(count, _taken(plain, whole, count)) for count in range(plain.layers + 1)]
    enough = next((way for way in ways if way.activations <= most), None)
    if enough is not None:
        return enough
    least = min(ways, key=lambda way: way.activations)
    layers = f"{least.layers} of {plain.layers} layers checkpointed"
    what = f"a step takes {-(-least.activations // MIB)} MiB with {layers}, and no less"
    if asked != FREE:
        raise Refused([Problem(KEY, asked, what, "raise it, or lower training.per_device_train_batch_size")])
    log.warning("%s=%d: %s, and about %d MiB are free for it", KEY, asked, what, most // MIB)
    return least


def _taken(plain: Growth, whole: Growth, count: int) -> int:
    """Bytes with the first `count` layers checkpointed: when the backward pass begins, or while it computes the last of
    them again, when those above are done."""
    saved = plain.layer - whole.layer
    begin = plain.fixed + plain.layers * plain.layer - count * saved
    again = whole.peak - (whole.layers - count) * whole.layer if count else 0
    return max(begin, again, plain.rest if count < plain.layers else whole.rest)


def spread(growth: Growth, layers: int) -> Growth:
    """The same, in equal parts over so many layers, where no part of it is known to be theirs."""
    if growth.layers or not layers:
        return growth
    return Growth(0, growth.fixed // layers, growth.fixed, layers)
