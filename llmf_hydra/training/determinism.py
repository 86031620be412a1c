"""`training.deterministic`: no operation that may give another result at the next call; and how torch computes here."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from llmf_hydra.errors import TrainingFailed
from llmf_hydra.runs import processes

NO_IMPLEMENTATION = re.compile(r"(\S+) does not have a deterministic implementation")


@contextmanager
def deterministic(asked: bool) -> Iterator[None]:
    """Within, torch computes with deterministic algorithms alone, where that is asked.

    Raises TrainingFailed with the name of an operation that has none on this device. What cuBLAS needs for it stands
    in the environment of the worker.
    """
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(asked or before)
    try:
        yield
    except RuntimeError as error:
        found = NO_IMPLEMENTATION.search(str(error)) if asked else None
        if found is None:
            raise
        raise TrainingFailed(
            f"training.deterministic=true: {found[1]} has no deterministic implementation on this device; "
            "set training.deterministic=false, or train without what uses it"
        ) from error
    finally:
        torch.use_deterministic_algorithms(before)


def use_threads() -> None:
    """Compute with the threads that the environment asks for. OMP_NUM_THREADS would be cut to the cores."""
    if processes.THREADS in os.environ:
        torch.set_num_threads(int(os.environ[processes.THREADS]))


def arithmetic() -> dict[str, Any]:
    """What sums depend on in their last bits: threads, vector instructions, devices; for the manifest."""
    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return {
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "gpus": gpus,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }
