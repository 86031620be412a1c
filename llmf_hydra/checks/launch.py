"""Schedulers that run the workers: Ray and Slurm."""

import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from llmf_hydra.checks.register import DISK, PACKAGES, rule
from llmf_hydra.checks.values import GPU_DRIVERS
from llmf_hydra.config.choices import JOBS
from llmf_hydra.config.param import set_in_environment
from llmf_hydra.config.schema import Config, entries
from llmf_hydra.errors import Problem
from llmf_hydra.optional import missing
from llmf_hydra.runs.schedulers.ray_worker import answers

ALL = tuple(JOBS)


@rule("launch.use_ray", "launch.use_slurm", jobs=ALL)
def one_scheduler_runs_the_workers(cfg: Config) -> Iterator[Problem]:
    """launch.use_ray and launch.use_slurm exclude each other."""
    if cfg.launch.use_ray and cfg.launch.use_slurm:
        yield Problem(
            "launch.use_slurm", True, "contradicts launch.use_ray=true", "set one of the two to false"
        )


@rule("launch.cuda_visible_devices", "launch.ray_num_gpus", "launch.slurm_gpus", jobs=ALL)
def the_scheduler_names_the_gpus(cfg: Config) -> Iterator[Problem]:
    """Where GPUs are reserved by Ray or Slurm, launch.cuda_visible_devices is theirs to set."""
    launch = cfg.launch
    key = "ray_num_gpus" if launch.use_ray and launch.ray_num_gpus else "slurm_gpus"
    reserved = (launch.use_ray and launch.ray_num_gpus) or (launch.use_slurm and launch.slurm_gpus)
    env = entries()["launch.cuda_visible_devices"].param.env
    given = launch.cuda_visible_devices
    if reserved and given is not None and (env is None or os.environ.get(env) != given):
        what = f"launch.{key}={reserved:g} has the scheduler choose the GPUs"
        yield Problem("launch.cuda_visible_devices", given, what, "leave it out")


@rule("launch.use_ray", phase=PACKAGES, jobs=ALL)
def ray_is_installed(cfg: Config) -> Iterator[Problem]:
    """launch.use_ray needs the package ray."""
    problem = missing("ray", extra="ray", key="launch.use_ray") if cfg.launch.use_ray else None
    if problem is not None:
        yield problem


@rule("launch.use_slurm", phase=PACKAGES, jobs=ALL)
def submitit_is_installed(cfg: Config) -> Iterator[Problem]:
    """launch.use_slurm needs the package submitit."""
    problem = missing("submitit", extra="slurm", key="launch.use_slurm") if cfg.launch.use_slurm else None
    if problem is not None:
        yield problem


@rule("launch.slurm_cluster", phase=DISK, jobs=ALL)
def slurm_is_at_hand(cfg: Config) -> Iterator[Problem]:
    """launch.slurm_cluster=slurm needs the commands sbatch and srun on the PATH."""
    if cfg.launch.use_slurm and cfg.launch.slurm_cluster == "slurm":
        lacking = [name for name in ("sbatch", "srun") if shutil.which(name) is None]
        if lacking:
            what = f"{' and '.join(lacking)} {'are' if len(lacking) > 1 else 'is'} not on the PATH"
            remedy = "start it on a login node of the cluster, or try it here with launch.slurm_cluster=local"
            yield Problem("launch.slurm_cluster", "slurm", what, remedy)


@rule("launch.optim_torch", "tracking.record_vram", phase=DISK, jobs=("train",))
def settings_of_gpus_find_one(cfg: Config) -> Iterator[Problem]:
    """launch.optim_torch and tracking.record_vram act on a GPU alone."""
    scheduled = cfg.launch.use_ray or cfg.launch.use_slurm
    for key, wanted in (
        ("launch.optim_torch", cfg.launch.optim_torch),
        ("tracking.record_vram", cfg.tracking.record_vram),
    ):
        if wanted and not scheduled and not any(map(Path.exists, GPU_DRIVERS)):
            yield Problem(_said(key), True, "has no effect: this machine has no GPU", "leave it out")


@rule("launch.npu_jit_compile", "launch.ascend_rt_visible_devices", phase=PACKAGES, jobs=("train",))
def settings_of_npus_find_one(cfg: Config) -> Iterator[Problem]:
    """launch.npu_jit_compile and launch.ascend_rt_visible_devices act on an Ascend NPU, with the package torch_npu."""
    devices = cfg.launch.ascend_rt_visible_devices
    scheduled = cfg.launch.use_ray or cfg.launch.use_slurm
    for key, value in (
        ("launch.npu_jit_compile", cfg.launch.npu_jit_compile),
        ("launch.ascend_rt_visible_devices", devices),
    ):
        if value and not scheduled and importlib.util.find_spec("torch_npu") is None:
            what = "needs an Ascend NPU and the package torch_npu, which isn't installed"
            yield Problem(_said(key), value, what, "leave it out")


def _said(key: str) -> str:
    """The key, and the environment variable where its value came from one."""
    declared = entries()[key].param
    return f"{key} (from {declared.env})" if set_in_environment(declared) else key


@rule("launch.ray_address", phase=DISK, jobs=ALL)
def the_ray_cluster_answers(cfg: Config) -> Iterator[Problem]:
    """launch.ray_address is null, auto, local, or the HOST:PORT of a Ray head node that answers."""
    address = cfg.launch.ray_address
    if not cfg.launch.use_ray or address in (None, "auto", "local"):
        return
    machine, _, port = address.rpartition(":")
    if not machine or "/" in machine or not port.isdecimal() or int(port) > 65535:
        yield Problem(
            "launch.ray_address", address, "is not null, auto, local or HOST:PORT", "such as 10.0.0.5:6379"
        )
    elif not answers(address):
        remedy = "start its head with `ray start --head --port=6379`, or leave it null for a cluster on this machine"
        yield Problem("launch.ray_address", address, "nothing answers there", remedy)
