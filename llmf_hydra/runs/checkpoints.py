"""Checkpoints of a run: the last whole one, and the final model."""

import os
from pathlib import Path
from typing import Protocol

from llmf_hydra.errors import Problem

FINAL = "final"
CARD = "README.md"  # of a model
ARGUMENTS = "training_args.bin"  # pickled by the trainer; config.yaml says it all
STATE = "trainer_state.json"  # the file a checkpoint is finished with


def last_checkpoint(out: Path) -> str | None:
    """The newest checkpoint of a run that was written to its end; None starts from the beginning."""
    whole = [folder for folder in out.glob("checkpoint-*") if (folder / STATE).exists()]
    return str(max(whole, key=lambda folder: int(folder.name.rpartition("-")[2]))) if whole else None


class Saves(Protocol):
    """A trainer, as far as it is needed here."""

    def save_model(self, output_dir: str) -> None: ...


def save_final(trainer: Saves, out: Path) -> None:
    """Save model and tokenizer to `final/`, as plain Transformers or PEFT loads them."""
    trainer.save_model(str(out / FINAL))


def tidy(folder: Path) -> None:
    """Leave PEFT's empty model card out, and let all read the files whom the umask lets: safetensors writes 0600."""
    (folder / CARD).unlink(missing_ok=True)
    follow_umask(folder)


def tidy_final(out: Path) -> None:
    """Leave in `final/` what a hub takes: no pickled arguments, and files that all may read whom the umask lets."""
    (out / FINAL / ARGUMENTS).unlink(missing_ok=True)
    follow_umask(out / FINAL)


def follow_umask(folder: Path) -> None:
    """Give the files of a folder the mode that a plainly written file has."""
    umask = os.umask(0)
    os.umask(umask)
    for file in folder.iterdir():
        if file.is_file():
            file.chmod(0o666 & ~umask)


def check_checkpoint(path: str) -> Problem | None:
    """Why a folder cannot be resumed from, or None."""
    folder, key = Path(path), "training.resume_from_checkpoint"
    if not folder.is_dir():
        return Problem(key, path, "there is no such folder")
    if not (folder / STATE).exists():
        return Problem(
            key,
            path,
            f"the folder holds no {STATE}",
            "name a checkpoint-N folder that was written to its end",
        )
    return None
