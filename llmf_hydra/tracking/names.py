"""What a run is called in its trackers."""

from collections import Counter
from collections.abc import Sequence

LONGEST = 120  # characters; wandb takes 128


def trial_name(varied: Sequence[str]) -> str:
    """`lora_rank=8 pref_beta=0.1` from a trial's overrides; a last part that two keys share is told in full."""
    pairs = [word.lstrip("+~").partition("=")[::2] for word in varied]
    shared = Counter(key.rpartition(".")[2] for key, _ in pairs)
    parts = []
    for key, value in pairs:
        last = key.rpartition(".")[2]
        parts.append(f"{last if shared[last] == 1 else key}={value}")
    name = " ".join(parts)
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"
