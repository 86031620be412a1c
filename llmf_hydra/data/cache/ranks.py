"""Which of several processes makes the data, and which processes were started together."""

import os


def makes_data(shared_file_system: bool) -> bool:
    """Whether this process makes the data.

    The first of all nodes if they share files, else the first of its node.
    """
    return os.environ.get("RANK" if shared_file_system else "LOCAL_RANK", "0") == "0"


def others_wait() -> bool:
    """Whether other processes of this launch wait for what this one makes."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def launch() -> str:
    """A name that the processes of one launch share, and no other launch does: where they meet."""
    names = ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT")
    return ":".join(os.environ.get(name, "") for name in names)
