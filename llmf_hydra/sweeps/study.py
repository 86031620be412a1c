"""A study: its plan, who runs which trial, and what became of each. Its storage is the ledger.

Every trial is in the storage, waiting, before the first one starts. A launcher claims one after the other; of several
launchers on one storage, exactly one gets each. What a killed launcher had claimed is claimed again by the next.
"""

import fcntl
import hashlib
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self

from llmf_hydra import paths
from llmf_hydra.errors import Problem, Refused
from llmf_hydra.runs import folder as runs
from llmf_hydra.sweeps import proposals
from llmf_hydra.sweeps.settings import SweeperSettings
from llmf_hydra.sweeps.space import Space
from llmf_hydra.sweeps.storage import open_storage

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

PLAN, PLANNED = "plan", "planned"
FIXED = ("space", "sampler", "seed", "n_trials", "objectives", "constraints", "pruner")  # of a study's plan
PLACE, ATTEMPT, OWNER, STATUS = "place", "attempt", "owner", "status"
OPEN = ("waiting", "running", "killed", "failed")  # what a resumed study runs
ENDED = ("done", "pruned", "refused")
PATIENCE = 30.0  # seconds until a plan that another launcher began is completed by this one
Direction = Literal["minimize", "maximize"]
Objectives = tuple[tuple[str, Direction], ...]  # metric and direction


@dataclass(frozen=True)
class Record:
    """One trial as the ledger has it."""

    number: int
    status: str  # waiting, running, done, pruned, failed, refused, killed
    params: dict[str, Any] = field(default_factory=dict)
    overrides: list[str] = field(default_factory=list)  # all words of its command, secrets masked
    values: list[float] = field(default_factory=list)  # of the objectives, in their order; empty without
    reports: dict[int, float] = field(default_factory=dict)  # step -> metric, while it trained
    out: str = ""  # the run's folder
    reason: str = ""
    code: int | None = None
    attempt: int = 1
    started: str | None = None
    ended: str | None = None
    feasible: bool = True

    @property
    def value(self) -> float | None:
        """The first objective's value."""
        return self.values[0] if self.values else None


@dataclass(frozen=True)
class Claim:
    """A trial that this launcher runs."""

    number: int
    attempt: int
    params: dict[str, Any]
    trial_id: int  # Optuna's own, which the worker reports to


class Study:
    """A study in its storage."""

    def __init__(self, study: "optuna.Study", url: str, plan: Mapping[str, Any]):
        self._study, self.url, self.plan = study, url, plan
        self.name = study.study_name

    @classmethod
    def load(cls, url: str, name: str) -> Self:
        """A study as it is, to be looked at. Raises Refused where the storage doesn't hold it."""
        import optuna

        storage = open_storage(url)
        try:
            study = optuna.load_study(study_name=name, storage=storage)
        except KeyError as error:
            known = ", ".join(sorted(entry.study_name for entry in storage.get_all_studies())) or "none"
            what = f"the storage has no such study; it has {known}"
            raise Refused([Problem("hydra.sweeper.study_name", name, what)]) from error
        return cls(study, url, study.user_attrs.get(PLAN, {}))

    @classmethod
    def open(
        cls,
        url: str,
        name: str,
        settings: SweeperSettings,
        space: Space,
        objectives: Objectives,
        plan: dict[str, Any],
    ) -> Self:
        """Make a study, or join the one that is there. Raises Refused where that one's plan is another."""
        import optuna

        directions: list[Any] = [direction for _, direction in objectives]
        with alone(url, name):
            storage = open_storage(url)
            try:
                study = optuna.create_study(storage=storage, study_name=name, directions=directions)
                study.set_user_attr(PLAN, plan)
            except optuna.exceptions.DuplicatedStudyError:
                study = optuna.load_study(study_name=name, storage=storage)
            known = study.user_attrs.get(PLAN)
            if known is None:  # its maker was killed right then
                study.set_user_attr(PLAN, plan)
            opened = cls(study, url, known or plan)
            opened._refuse_another(plan)
            opened._enqueue(settings, space)
        return opened

    def _refuse_another(self, plan: Mapping[str, Any]) -> None:
        different = [key for key in FIXED if self.plan[key] != plan[key]]
        if different:
            key = different[0]
            what = f"holds the study {self.name} already, whose {key} is {_short(self.plan[key])}"
            asked = f"this command's is {_short(plan[key])}; name another hydra.sweep.dir or hydra.sweeper.study_name"
            raise Refused([Problem("hydra.sweep.dir", self.url, what, asked)])

    def _enqueue(self, settings: SweeperSettings, space: Space) -> None:
        """Write down every trial that isn't yet."""
        began = time.monotonic()
        while not self._study.user_attrs.get(PLANNED):
            there = {trial.user_attrs[PLACE] for trial in self._trials()}
            if there and time.monotonic() - began < PATIENCE and self._maker_lives():
                time.sleep(0.1)
                continue
            for place, params in enumerate(proposals.known_beforehand(settings, space)):
                if place not in there:
                    self._study.enqueue_trial(params, user_attrs={PLACE: place, ATTEMPT: 1})
            self._study.set_user_attr(PLANNED, True)

    def _maker_lives(self) -> bool:
        """Whether another machine may be writing the plan; on this one the lock has kept us waiting."""
        return self.plan.get("host") != socket.gethostname()

    def reopen(self) -> None:
        """Have trials that failed run again; those that are done, pruned or refused stay."""
        for trial in self._latest():
            if trial.state.name == "FAIL" and trial.user_attrs.get(STATUS) == "failed":
                attrs = {PLACE: trial.user_attrs[PLACE], ATTEMPT: trial.user_attrs[ATTEMPT] + 1}
                self._study.enqueue_trial(trial.params, user_attrs=attrs)

    def claim(self, settings: SweeperSettings, space: Space) -> Claim | None:
        """The next trial to run, claimed for this process; None where none is waiting."""
        with alone(self.url, self.name):
            trial_id = self._orphan()
            if trial_id is None:  # 0 is a trial's id
                trial_id = self._waiting()
            if trial_id is None:
                return None
            known = self._storage.get_trial(trial_id)
            place, attempt = known.user_attrs[PLACE], known.user_attrs[ATTEMPT]
            self._set(trial_id, **{OWNER: _me(), STATUS: "running", "started": runs.now()})
        import optuna

        self._study.sampler = proposals.sampler(settings, place)
        trial = optuna.trial.Trial(self._study, trial_id)
        params = {entry.key: trial._suggest(entry.key, entry.distribution()) for entry in space.dimensions}
        return Claim(place, attempt, params, trial_id)

    def _waiting(self) -> int | None:
        return self._study._pop_waiting_trial_id()

    def _orphan(self) -> int | None:
        """A trial whose launcher is gone, or that was stopped."""
        import optuna

        for trial in self._trials(optuna.trial.TrialState.RUNNING):
            if _lives(trial.user_attrs.get(OWNER)):
                continue
            if trial.user_attrs.get(STATUS) not in (*ENDED, "failed"):
                return trial._trial_id
            # Its launcher was killed between its own word and Optuna's.
            self._tell(trial._trial_id, trial.user_attrs[STATUS], trial.user_attrs.get("values", []))
        return None

    def note(self, claim: Claim, **values: Any) -> None:
        """Write down something of a claimed trial: its words, its folder."""
        self._set(claim.trial_id, **values)

    def release(self, claim: Claim, reason: str = "") -> None:
        """Give a claim back: the trial was stopped and is to go on in a resumed study."""
        self._set(claim.trial_id, **{STATUS: "killed", OWNER: None, "reason": reason, "ended": runs.now()})

    def end(
        self,
        claim: Claim,
        status: str,
        *,
        values: Sequence[float] = (),
        broken: Sequence[float] = (),
        code: int = 0,
        reason: str = "",
    ) -> None:
        """Write down how a trial ended; `broken` says for each constraint by how much (0 or less: it holds)."""
        found = {"values": list(values), proposals.CONSTRAINTS: list(broken)}
        self._set(claim.trial_id, code=code, reason=reason, ended=runs.now(), **found, **{STATUS: status})
        self._tell(claim.trial_id, status, list(values))

    def _tell(self, trial_id: int, status: str, values: list[float]) -> None:
        from optuna.trial import TrialState

        number = self._storage.get_trial_number_from_id(trial_id)
        if status == "done" and values:
            self._study.tell(number, values, TrialState.COMPLETE)
        else:
            state = TrialState.PRUNED if status == "pruned" else TrialState.FAIL
            self._study.tell(number, state=state)

    def records(self) -> list[Record]:
        """Every trial, by number; of one that was tried again, the last attempt."""
        return [_record(trial) for trial in self._latest()]

    def averaged(self, means: Sequence[tuple[dict[str, Any], list[float]]]) -> "optuna.Study":
        """A study in memory of these parameters, with their values, for Optuna's importances."""
        import optuna

        known = {key: own for trial in self._trials() for key, own in trial.distributions.items()}
        made = optuna.create_study(directions=self._study.directions)
        for params, values in means:
            distributions = {key: known[key] for key in params}
            made.add_trial(
                optuna.trial.create_trial(values=values, params=params, distributions=distributions)
            )
        return made

    def _latest(self) -> list["FrozenTrial"]:
        latest = {trial.user_attrs[PLACE]: trial for trial in self._trials()}  # later attempts come later
        return [latest[place] for place in sorted(latest)]

    def _trials(self, *states: "optuna.trial.TrialState") -> list["FrozenTrial"]:
        every = self._storage.get_all_trials(self._study._study_id, deepcopy=False, states=states or None)
        return [trial for trial in every if PLACE in trial.user_attrs]

    @property
    def _storage(self) -> Any:
        return self._study._storage

    def _set(self, trial_id: int, **values: Any) -> None:
        for key, value in values.items():
            self._storage.set_trial_user_attr(trial_id, key, value)


def identity(words: Sequence[str], inherits: object) -> str:
    """What makes two trials the same: their overrides and what they inherit, as 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps([sorted(words), inherits], sort_keys=True).encode()).hexdigest()[:16]


def _record(trial: "FrozenTrial") -> Record:
    known = trial.user_attrs
    status = known.get(STATUS, "waiting")
    if status == "running" and not _lives(known.get(OWNER)):
        status = "killed"
    return Record(
        number=known[PLACE],
        status=status,
        params=dict(trial.params) or dict(trial.system_attrs.get("fixed_params", {})),
        overrides=known.get("overrides", []),
        values=list(known.get("values", [])),
        reports=dict(trial.intermediate_values),
        out=known.get("out", ""),
        reason=known.get("reason", ""),
        code=known.get("code"),
        attempt=known.get(ATTEMPT, 1),
        started=known.get("started"),
        ended=known.get("ended"),
        feasible=all(value <= 0 for value in known.get(proposals.CONSTRAINTS, [])),
    )


def _me() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "since": runs.process_identity(os.getpid())}


def _lives(owner: Mapping[str, Any] | None) -> bool:
    """Whether the launcher that claimed a trial is at work; of another machine's it is taken for granted."""
    if owner is None:
        return False
    if owner["host"] != socket.gethostname():
        return True
    return runs.process_identity(owner["pid"]) == owner["since"]


@contextmanager
def alone(url: str, name: str) -> Iterator[None]:
    """Within, no other launcher of this user on this machine is: what Optuna doesn't do in one stroke."""
    digest = hashlib.sha256(f"{url} {name}".encode()).hexdigest()[:16]
    folder = paths.cache_dir() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"study-{digest}.lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value
    return text if len(text) <= 120 else f"{text[:119]}…"
