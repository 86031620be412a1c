"""Which engine really trains. The libraries take another one in silence where they cannot give the one asked for."""

import torch
from accelerate import Accelerator
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from llmf_hydra.config.groups.launch import LaunchConfig
from llmf_hydra.errors import TrainingFailed


def any_process(flag: bool, device: torch.device) -> bool:
    """Whether it is true in one of the processes, which all ask at the same point."""
    if not torch.distributed.is_initialized():
        return flag
    known = torch.tensor(float(flag), device=device)
    torch.distributed.all_reduce(known)
    return bool(known > 0)


def check_processes(launch: LaunchConfig, accelerator: Accelerator) -> None:
    """Raise TrainingFailed unless as many processes have joined as were asked for."""
    asked, found = launch.nproc_per_node, accelerator.num_processes
    if found != asked:
        raise TrainingFailed(f"launch.nproc_per_node={asked} was asked for, and {found} train together")


def check_wrapper(launch: LaunchConfig, model: nn.Module) -> None:
    """Raise TrainingFailed unless the model, as it is trained, is wrapped for one process or for several."""
    asked = launch.nproc_per_node
    if (asked > 1) != isinstance(model, DistributedDataParallel):
        wanted = DistributedDataParallel.__name__ if asked > 1 else "no wrapper"
        found = type(model).__name__
        raise TrainingFailed(
            f"launch.nproc_per_node={asked} is trained by {wanted}, and {found} is in its place"
        )
