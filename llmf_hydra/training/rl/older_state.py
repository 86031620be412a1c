"""PPO's state in checkpoints of the first version: one file of its own, `ppo_state_<rank>.pt`."""

from pathlib import Path

import torch

FILE = "ppo_state_{rank}.pt"


def older_state(folder: Path, rank: int) -> dict[str, dict[str, object]]:
    """What that file holds, by the names under which the parts register today; empty where there is none."""
    file = folder / FILE.format(rank=rank)
    if not file.exists():
        return {}
    state = torch.load(file, weights_only=True)
    return {
        "rollouts": {name: state[name] for name in ("number", "buffer")},
        "advantages": {name: state[name] for name in ("coefficient", "moments")},
    }
