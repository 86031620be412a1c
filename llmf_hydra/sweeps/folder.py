"""A sweep's folder, opened to be looked at or gone on with: its plan, its study, and where its files are now."""

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml

from llmf_hydra.config.quoting import hydra_value
from llmf_hydra.config.schema import entries
from llmf_hydra.config.secrets import MASK, masked_text, variables
from llmf_hydra.errors import NO_VALUE, Problem, Refused
from llmf_hydra.runs import folder as runs
from llmf_hydra.sweeps import command
from llmf_hydra.sweeps import plan as plans
from llmf_hydra.sweeps.storage import JOURNAL, JOURNAL_SCHEME
from llmf_hydra.sweeps.study import Objectives, Record, Study

STORAGE = "hydra.sweeper.storage"
STUDY_NAME = "hydra.sweeper.study_name"
SWEEP_DIR = "hydra.sweep.dir"


@dataclass(frozen=True)
class SweepFolder:
    """A folder that holds a study."""

    path: Path  # absolute
    plan: Mapping[str, Any]  # its study.json
    study: Study
    objectives: Objectives

    @classmethod
    def open(cls, path: Path, storage: str | None = None) -> Self:
        """Open the study of a folder; `storage` is its URL where the recorded one lacks its password.

        Raises Refused where the folder holds no study, or its storage can't be reached.
        """
        path = path.expanduser().absolute()
        plan = plans.read(path)
        url = storage or url_of(path, plan)
        if MASK in url:
            what = "is recorded without its password"
            raise Refused([Problem("storage", url, what, "give the whole URL: --storage URL")])
        journal = Path(url.removeprefix(JOURNAL_SCHEME))
        if url.startswith(JOURNAL_SCHEME) and not journal.exists():
            raise Refused([Problem("storage", url, "is no longer there", "--storage names where it is now")])
        objectives: Objectives = tuple(plan["objectives"].items())
        return cls(path, plan, Study.load(url, plan["name"]), objectives)

    @property
    def name(self) -> str:
        """The study's name."""
        return self.study.name

    @property
    def flags(self) -> list[str]:
        """The flags of a command that repeats one of its trials."""
        return _flags(self.path, self.plan)

    def records(self) -> list[Record]:
        """All trials by number, with their folders where they are now."""
        return plans.located(self.study.records(), self.path)

    def jobs(self) -> int:
        """Trials at once, as the study was begun."""
        try:
            config = yaml.safe_load((self.path / "multirun.yaml").read_text(encoding="utf8"))
            return int(config["hydra"]["sweeper"]["n_jobs"])
        except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError):
            return 1


def url_of(path: Path, plan: Mapping[str, Any]) -> str:
    """The storage's URL: a journal of the folder's own is looked for where the folder is now."""
    url = str(plan["storage"])
    if url.startswith(JOURNAL_SCHEME) and Path(url).name == JOURNAL and (path / JOURNAL).exists():
        return f"{JOURNAL_SCHEME}{path / JOURNAL}"
    return url


def resuming(path: Path, plan: Mapping[str, Any], more: Sequence[str]) -> list[str]:
    """The words of the command that goes on with a study; `more` come last and replace what they repeat.

    Raises Refused with the secrets that are to be given once more.
    """
    again = {_key(word) for word in more}
    kept = [word for word in plan["overrides"] if _key(word) not in again | {SWEEP_DIR}]
    words, lacking = [], []
    for word in kept:
        known = word if MASK not in word else _restored(word)
        if known is None:
            lacking.append(_missing(path, word))
        else:
            words.append(known)
    if lacking:
        raise Refused(lacking)
    if plan["name"] != path.name and not any(_key(word) == STUDY_NAME for word in [*words, *more]):
        words.append(f"{STUDY_NAME}={hydra_value(plan['name'])}")
    return [*_flags(path, plan), *words, *more, f"{SWEEP_DIR}={hydra_value(str(path))}"]


def settle(path: Path, plan: Mapping[str, Any]) -> None:
    """Have a folder that was moved name its own journal and its own trials, so that it can be gone on with."""
    url = url_of(path, plan)
    if url != plan["storage"]:
        runs.write_json(path / plans.STUDY, {**plan, "storage": masked_text(url)})
    for manifest in path.glob(f"*/{runs.MANIFEST}"):
        known = runs.read_manifest(manifest.parent)
        sweep = known.get("sweep")
        if sweep and sweep["dir"] != str(path):
            runs.update_manifest(manifest.parent, sweep={**sweep, "dir": str(path), "name": path.name})


def _flags(path: Path, plan: Mapping[str, Any]) -> list[str]:
    """`--config-name` and the folders of configs, which are recorded as Hydra's sources."""
    try:
        config = yaml.safe_load((path / "multirun.yaml").read_text(encoding="utf8"))
        sources = list(config["hydra"]["runtime"]["config_sources"])
        return command.flags(str(plan["config_name"]), sources)
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return command.flags(str(plan["config_name"]), [])


def _key(word: str) -> str:
    return word.partition("=")[0].strip().lstrip("+~")


def _restored(word: str) -> str | None:
    """A masked word with its secret from the environment; None where no variable gives it."""
    key = _key(word)
    if key not in entries():
        return None
    given = next((os.environ[name] for name in variables(key) if os.environ.get(name)), None)
    return None if given is None else f"{key}={hydra_value(given)}"


def _missing(path: Path, word: str) -> Problem:
    key = _key(word)
    named = variables(key) if key in entries() else ()
    remedy = f"give it again: llmf sweep resume {shlex.quote(os.path.relpath(path))} {key}=…"
    return Problem(key, NO_VALUE, "is secret and not recorded", " or set ".join([remedy, *named]))
