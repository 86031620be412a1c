"""Which of a run's processes this one is. Set by the launcher, under the names that torch reads."""

import os

RANK, LOCAL, WORLD = "RANK", "LOCAL_RANK", "WORLD_SIZE"
ADDRESS, PORT = "MASTER_ADDR", "MASTER_PORT"
VARIABLES = (RANK, LOCAL, WORLD, ADDRESS, PORT)


def rank() -> int:
    """The number of this process in its run, from 0."""
    return int(os.environ.get(RANK, "0"))


def world_size() -> int:
    """How many processes the run has."""
    return int(os.environ.get(WORLD, "1"))


def is_main() -> bool:
    """Whether this is the process that writes the run's files and speaks to the user."""
    return rank() == 0


def assign(env: dict[str, str], rank: int, world: int, port: int) -> None:
    """Make `env` that of process `rank` of `world` on this machine, which meet at a port; alone it needs none."""
    for name in VARIABLES:
        env.pop(name, None)
    if world > 1:
        env |= {RANK: str(rank), LOCAL: str(rank), WORLD: str(world), ADDRESS: "127.0.0.1", PORT: str(port)}
