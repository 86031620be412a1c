"""The files of a study in its folder, and what is said at its end."""

import hashlib
import json
import os
import shlex
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from llmf_hydra.config.secrets import masked_text, masked_tree
from llmf_hydra.errors import Problem, Refused
from llmf_hydra.runs import folder as runs
from llmf_hydra.sweeps import account
from llmf_hydra.sweeps.account import ACCOUNT
from llmf_hydra.sweeps.place import Place
from llmf_hydra.sweeps.settings import SweeperSettings
from llmf_hydra.sweeps.space import Space
from llmf_hydra.sweeps.study import Claim, Objectives, Record, Study

STUDY = "study.json"
LONGEST_NAME = 100  # characters; wandb's groups take 128
FORMS = {"name": str, "storage": str, "cwd": str, "config_name": str, "created": str, "overrides": list, "space": dict,
         "objectives": dict}  # of what is read again  # fmt: skip
GPUS = Path("/proc/driver/nvidia/gpus")


def of(
    given: SweeperSettings, space: Space, objectives: Objectives, inherits: Mapping[str, Any]
) -> dict[str, Any]:
    """The plan of a study, readable at a glance."""
    chosen = asdict(given)
    return {
        "space": space.described(),
        "fixed": masked_tree(list(space.fixed)),
        "sampler": given.sampler,
        "seed": given.seed,
        "n_trials": given.n_trials,
        "objectives": dict(objectives),
        "constraints": list(given.constraints),
        "pruner": {key: value for key, value in chosen.items() if key.startswith("pruner")},
        "host": socket.gethostname(),
        "created": runs.now(),
        "inherits": dict(inherits),
    }


def claim_folder(folder: Path, url: str, name: str) -> bool:
    """Make the sweep's folder; returns whether it holds this study already. Refused where it holds another sweep."""
    file = folder / STUDY
    if file.exists():
        known = read(folder)
        if (known["storage"], known["name"]) == (masked_text(url), name):
            return True
        remedy = (
            f"go on with it: llmf sweep resume {shlex.quote(os.path.relpath(folder))}; or name another folder"
        )
        raise Refused([_taken(folder, f"the study {known['name']} in {known['storage']}", remedy)])
    if (folder / ACCOUNT).exists():
        raise Refused([_taken(folder, ACCOUNT)])
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refused([Problem("hydra.sweep.dir", folder, str(error.strerror))]) from error
    return False


def _taken(folder: Path, what: str, remedy: str = "name another folder") -> Problem:
    return Problem("hydra.sweep.dir", folder, f"holds a sweep already ({what})", remedy)


def located(records: Sequence[Record], folder: Path) -> list[Record]:
    """The records with the folders of their trials where they are now: those of a moved sweep moved with it."""
    return [replace(record, out=_out(record, folder)) for record in records]


def _out(record: Record, folder: Path) -> str:
    moved = folder / str(record.number)
    return str(moved) if record.out and not Path(record.out).exists() and moved.exists() else record.out


def write(
    folder: Path, config: DictConfig, plan: Mapping[str, Any], url: str, name: str, *, resumed: bool
) -> None:
    """Write the study's plan and its config down; what is there already stays."""
    if resumed:
        return
    command = [*config.hydra.overrides.hydra, *config.hydra.overrides.task]
    told = {
        "name": name,
        "storage": masked_text(url),
        "cwd": str(Path.cwd()),
        "config_name": str(config.hydra.job.config_name),
        "overrides": masked_tree([str(word) for word in command]),
        **plan,
    }
    recorded: Any = masked_tree(OmegaConf.to_container(config))
    OmegaConf.save(OmegaConf.create(recorded), folder / "multirun.yaml")
    runs.write_json(folder / STUDY, told)


def read(folder: Path) -> dict[str, Any]:
    """The plan that a folder holds; raises Refused where it holds none."""
    try:
        known = json.loads((folder / STUDY).read_text(encoding="utf8"))
        if not isinstance(known, dict) or not all(
            isinstance(known.get(key), kind) for key, kind in FORMS.items()
        ):
            raise ValueError(f"no plan of a study: {folder / STUDY}")
        return known
    except (OSError, ValueError) as error:
        remedy = "name the folder of a sweep (hydra.sweep.dir); those of one folder: outputs/sweeps"
        raise Refused([Problem("sweep", folder, f"holds no {STUDY} that can be read", remedy)]) from error


def varied(folder: Path, words: Sequence[str]) -> list[str]:
    """Those of a trial's overrides that its study varies; none where another sweeper of Hydra's runs it."""
    if not (folder / STUDY).exists():
        return []
    space = read(folder)["space"]
    return [word for word in words if word.partition("=")[0] in space]


def unique_name(folder: Path) -> str:
    """The name of a sweep with what tells it from others of that name: `rates-1f3b5c7d`.

    A study keeps it wherever its folder is moved to, and in all folders that share it.
    """
    known = read(folder) if (folder / STUDY).exists() else {"name": folder.name, "created": str(folder)}
    told = json.dumps([known["name"], known["created"], known.get("host")])
    return f"{str(known['name'])[:LONGEST_NAME]}-{hashlib.sha256(told.encode()).hexdigest()[:8]}"


def gpus() -> list[str]:
    """The GPUs of this machine, as CUDA counts them."""
    return [str(number) for number, _ in enumerate(sorted(GPUS.iterdir()))] if GPUS.is_dir() else []


def place(study: Study, claim: Claim, given: SweeperSettings, objectives: Objectives) -> Place | None:
    """Where a trial's worker reports to; None where nothing is pruned."""
    if given.pruner == "none":
        return None
    ((metric, _),) = objectives  # several are refused with a pruner
    return Place(study.url, study.name, claim.trial_id, "" if metric == "objective" else metric, given)


def closing(records: Sequence[Record], objectives: Objectives, flags: Sequence[str]) -> Iterator[str]:
    """What a reader wants to know at the end: the best trial, and the command that repeats it."""
    if len(objectives) > 1:
        front = ", ".join(str(record.number) for record in account.pareto(records, objectives))
        if front:
            yield f"on the Pareto front: trials {front}"
        return
    best = account.best(records, objectives)
    if best is not None:
        yield f"best: trial {best.number}, {next(iter(objectives))[0]} {best.value}; repeat it with"
        yield f"  {masked_text(account.repeat(best, flags))}"
