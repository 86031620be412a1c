"""Checkpoints of a run: written whole or not at all, the last whole one, and the final model."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llmf_hydra.errors import Problem
from llmf_hydra.runs import disk, seal

FINAL = "final"
CARD = "README.md"  # of a model
PREFIX = "checkpoint-"
PARTIAL = ".partial"  # a checkpoint or `final/` lies in it while it is written
ARGUMENTS = "training_args.bin"  # pickled by the trainer; config.yaml says it all


@dataclass(frozen=True)
class Choice:
    """The checkpoint that a resumed run starts from, None for its beginning, and the newer ones that are no good."""

    checkpoint: Path | None
    passed: tuple[tuple[str, str], ...] = ()  # name, and what is wrong with it

    def sentence(self) -> str:
        """What is taken and what is passed over, for people."""
        taken = "the run's beginning" if self.checkpoint is None else self.checkpoint.name
        over = "; ".join(f"{name} is passed over: {why}" for name, why in self.passed)
        return f"going on from {taken}" + (f"; {over}" if over else "")


def choose(out: Path) -> Choice:
    """The newest whole checkpoint of a run's folder."""
    passed = [(folder.name, "it was never finished") for folder in _by_step(out / PARTIAL)]
    for folder in reversed(_by_step(out)):
        damage = seal.damage(folder)
        if damage is None:
            return Choice(folder, tuple(passed))
        passed.append((folder.name, damage))
    return Choice(None, tuple(passed))


def begin(out: Path, name: str) -> Path:
    """An empty folder in which `name` is to be written; what an earlier process left half written is removed."""
    shutil.rmtree(out / PARTIAL, ignore_errors=True)
    folder = out / PARTIAL / name
    folder.mkdir(parents=True)
    return folder


def publish(out: Path, name: str, record: Mapping[str, object] | None) -> None:
    """Give what was written its place, in one stroke and after it has reached the disk; with a record it is sealed."""
    written, target = out / PARTIAL / name, out / name
    if record is None:
        disk.flush(written)
    else:
        seal.seal(written, record)
    if target.exists():  # a damaged one, or the end of a run that was killed before it could say so
        shutil.rmtree(target)
    written.rename(target)
    disk.flush_entry(out)
    (out / PARTIAL).rmdir()


def discard(out: Path) -> None:
    """Remove what is half written."""
    shutil.rmtree(out / PARTIAL, ignore_errors=True)


def remove_surplus(out: Path, limit: int | None, best: str | None) -> None:
    """Remove damaged checkpoints, and the oldest beyond `limit`, apart from the best one."""
    whole = []
    for folder in _by_step(out):
        if seal.damage(folder, contents=False) is None:
            whole.append(folder)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    if limit is None:
        return
    protected = {str(whole[-1]), *([best] if best is not None else [])}
    surplus = len(whole) - max(limit, len(protected))
    for folder in [folder for folder in whole if str(folder) not in protected][: max(surplus, 0)]:
        shutil.rmtree(folder, ignore_errors=True)


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
    for file in folder.rglob("*"):
        if file.is_file():
            file.chmod(0o666 & ~umask)


def check_checkpoint(path: str) -> Problem | None:
    """Why a folder cannot be resumed from, or None."""
    folder, key = Path(path), "training.resume_from_checkpoint"
    if not folder.is_dir():
        return Problem(key, path, "there is no such folder")
    damage = seal.damage(folder)
    if damage is not None:
        return Problem(key, path, f"is damaged: {damage}", "name a checkpoint-N folder that is whole")
    return None


def _by_step(out: Path) -> list[Path]:
    """The folders of checkpoints, oldest first."""
    found = {int(number): folder for folder in out.glob(f"{PREFIX}*")
             if (number := folder.name.removeprefix(PREFIX)).isdigit() and folder.is_dir()}  # fmt: skip
    return [found[step] for step in sorted(found)]
