"""Folders that several processes write together, whole or not at all."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from llmf_hydra.errors import LlmfError, TrainingFailed
from llmf_hydra.runs import checkpoints, disk
from llmf_hydra.training.parallelism import any_process

Write = Callable[[Path], None]


def save_whole(
    accelerator: Accelerator, out: Path, name: str, write: Write, record: Mapping[str, Any] | None = None
) -> None:
    """Have all processes `write` into one folder, which becomes `out/name` once all have; sealed if there's a record.

    Raises TrainingFailed in each process where one of them can't write; nothing half written stays then.
    """
    main = accelerator.is_main_process

    def together(act: Callable[[], object]) -> None:
        error = _attempt(act)
        if any_process(error is not None, accelerator.device):
            if main:
                checkpoints.discard(out)
            raise _told(error, out / name)

    together(lambda: main and checkpoints.begin(out, name))
    together(lambda: write(out / checkpoints.PARTIAL / name))
    together(lambda: main and checkpoints.publish(out, name, record))


def _attempt(act: Callable[[], object]) -> Exception | None:
    try:
        act()
    except Exception as error:
        return error
    return None


def _told(error: Exception | None, target: Path) -> Exception:
    """What is raised for a failure; None is that of another process."""
    if error is None:
        return TrainingFailed(f"{target} cannot be saved: another process failed to write its part")
    if isinstance(error, LlmfError):
        return error
    reason = disk.full(error, target)
    if reason is None:
        return error
    last = checkpoints.choose(target.parent).checkpoint
    kept = f"{last.name} is whole" if last is not None else "no checkpoint was saved before"
    failed = TrainingFailed(
        f"{target} cannot be saved: {reason}. What was written of it is removed, and {kept}: "
        f"make room, then go on with: llmf resume {target.parent}"
    )
    failed.__cause__ = error
    return failed
