"""What a run needs beside a sound config: versions of packages, a checkpoint to start from."""

import importlib.metadata
from collections.abc import Iterator
from pathlib import Path

from llmf_hydra.checks.register import DISK, PACKAGES, rule
from llmf_hydra.config.choices import LEARNING_JOBS
from llmf_hydra.config.schema import Config
from llmf_hydra.errors import NO_VALUE, Problem
from llmf_hydra.runs import trained_with
from llmf_hydra.runs.checkpoints import check_checkpoint

TRL = "1.16"


@rule("launch.disable_version_check", jobs=LEARNING_JOBS, phase=PACKAGES)
def trl_has_a_version_that_works(cfg: Config) -> Iterator[Problem]:
    """TRL has a version this release works with, unless launch.disable_version_check skips the check."""
    installed = importlib.metadata.version("trl")
    if not cfg.launch.disable_version_check and not installed.startswith(f"{TRL}."):
        what = f"version {installed} is installed, and this release works with {TRL}"
        yield Problem(
            "trl", NO_VALUE, what, f"pip install 'trl=={TRL}.*', or launch.disable_version_check=true"
        )


@rule("training.resume_from_checkpoint", jobs=LEARNING_JOBS, phase=DISK)
def the_checkpoint_is_whole(cfg: Config) -> Iterator[Problem]:
    """training.resume_from_checkpoint names a checkpoint folder that was written to its end."""
    path = cfg.training.resume_from_checkpoint
    problem = check_checkpoint(path) if path is not None else None
    if problem is not None:
        yield problem


@rule("training.resume_from_checkpoint", *trained_with.KEYS, phase=DISK)
def the_checkpoint_was_trained_alike(cfg: Config) -> Iterator[Problem]:
    """training.resume_from_checkpoint was written by a run of the same stage, method, processes, batch and seed."""
    path = cfg.training.resume_from_checkpoint
    if path is not None and check_checkpoint(path) is None:
        yield from trained_with.config_problems(Path(path), cfg)
